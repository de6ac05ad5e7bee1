//! Several callers and several servers at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use stockade_api::CreateSandbox;
use stockade_api::client::ClientError;
use stockade_e2e::server::Server;
use stockade_e2e::wait;
use stockade_e2e::world::{GONE, World, scenario};

/// Twenty creates of one id, spread over the servers; all answers must be one.
async fn create_by_twenty(world: &World, servers: &[Server]) {
    let request = CreateSandbox::new("one");
    let clients: Vec<_> = (0..20).map(|turn| servers[turn % servers.len()].client()).collect();
    let answers = join_all(clients.iter().map(|client| client.create(&request))).await;
    let urls: BTreeSet<String> =
        answers.into_iter().map(|answer| answer.expect("a sandbox").sandbox_url.into_owned()).collect();
    assert_eq!(urls.len(), 1, "{urls:?}");
    assert_eq!(world.cluster.count().await, (1, 1));
    let sandbox = clients[0].get("one").await.unwrap().expect("the sandbox");
    assert!(urls.contains(sandbox.sandbox_url.as_ref()));
    world.enter(&sandbox).await;
}

#[test]
fn twenty_creates_of_one_id_at_once_make_one_sandbox() {
    scenario(async |world| {
        let server = world.server().await;
        create_by_twenty(world, &[server]).await;
    });
}

#[test]
fn twenty_creates_of_one_id_through_two_servers_make_one_sandbox() {
    scenario(async |world| {
        let servers = [world.server().await, world.server().await];
        create_by_twenty(world, &servers).await;
    });
}

#[test]
fn a_create_right_after_a_delete_gives_a_fresh_sandbox_that_works() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let mut seen = BTreeSet::new();
        for turn in 0..3 {
            let sandbox = client.create(&CreateSandbox::new("again")).await.unwrap();
            let uid = world.cluster.pod_uid("again").await.expect("a Pod");
            assert!(seen.insert(uid), "turn {turn}: the create answered with a Pod that was deleted before");
            world.enter(&sandbox).await;
            client.delete("again").await.unwrap();
        }
    });
}

#[test]
fn a_create_through_one_server_right_after_a_delete_through_another_is_fresh_too() {
    scenario(async |world| {
        let (one, other) = (world.server().await, world.server().await);
        let request = CreateSandbox::new("hop");
        for (makes, deletes) in [(&one, &other), (&other, &one), (&one, &other)] {
            let sandbox = makes.client().create(&request).await.unwrap();
            let before = world.cluster.pod_uid("hop").await;
            world.enter(&sandbox).await;
            deletes.client().delete("hop").await.unwrap();
            let fresh = makes.client().create(&request).await.unwrap();
            assert_ne!(world.cluster.pod_uid("hop").await, before);
            world.enter(&fresh).await;
            deletes.client().delete("hop").await.unwrap();
        }
    });
}

/// What may be answered while others delete: the sandbox, or a word to come again.
fn is_fine(result: &Result<stockade_api::Sandbox<'static>, ClientError>) -> bool {
    matches!(result, Ok(_) | Err(ClientError::Refused { status: 503, .. }))
}

#[test]
fn servers_that_create_and_delete_one_id_at_once_leave_a_whole_sandbox_or_nothing() {
    scenario(async |world| {
        let servers = [world.server().await, world.server().await, world.server().await];
        let request = CreateSandbox::new("fight");
        let gateways = servers.iter().enumerate().map(|(number, server)| {
            let (client, request) = (server.client(), &request);
            async move {
                for turn in 0..4 {
                    if (turn + number) % 2 == 0 {
                        let result = client.create(request).await;
                        assert!(is_fine(&result), "{result:?}");
                    } else {
                        client.delete("fight").await.expect("a delete succeeds whatever others do");
                    }
                }
            }
        });
        join_all(gateways).await;

        // Whatever is there in the end, it is whole: a Pod and the Service that belongs to it, or neither.
        let whole = wait::until("a whole sandbox or nothing", GONE, async || {
            match (world.cluster.pod("fight").await, world.cluster.service("fight").await) {
                (None, None) => Ok(false),
                (Some(pod), Some(service)) if pod.metadata.deletion_timestamp.is_none() => {
                    let owner =
                        service.metadata.owner_references.iter().flatten().next().map(|o| o.uid.clone());
                    if owner == pod.metadata.uid {
                        Ok(true)
                    } else {
                        Err("a Service of another Pod".to_owned())
                    }
                }
                (pod, service) => Err(format!("Pod: {}, Service: {}", pod.is_some(), service.is_some())),
            }
        })
        .await;
        for server in &servers {
            let sandbox = server.client().get("fight").await.unwrap();
            assert_eq!(sandbox.is_some(), whole);
            if let Some(sandbox) = sandbox {
                world.enter(&sandbox).await;
            }
        }
        let last = servers[0].client().create(&request).await.expect("a create when it is quiet again");
        world.enter(&last).await;
    });
}
