//! The server ends and starts: nothing is lost, because it keeps nothing.

use std::time::Duration;

use futures::future::join_all;
use stockade_api::CreateSandbox;
use stockade_api::client::ClientError;
use stockade_e2e::wait;
use stockade_e2e::world::{World, scenario};

use crate::support::{listed, mk_request};

/// Ends the server in one way and wants the next one to find everything.
async fn adopts_everything(world: &World, killed: bool) {
    let first = world.server().await;
    let request = mk_request("one", "default", "t1");
    let sandbox = first.client().create(&request).await.unwrap();
    first.client().create(&CreateSandbox::new("two")).await.unwrap();
    let testbox = world.enter(&sandbox).await;
    let uid = world.cluster.pod_uid("one").await;
    if killed {
        first.kill().await;
    } else {
        first.stop().await;
    }
    assert!(testbox.host_name().await.is_ok(), "the sandbox went with its server");

    let second = world.server().await;
    // Ready means that the index is complete: no wait for the list.
    assert_eq!(listed(&second).await, ["one", "two"]);
    let found = second.client().get("one").await.unwrap().expect("the sandbox");
    assert_eq!((&found.sandbox_url, &found.thread_id), (&sandbox.sandbox_url, &sandbox.thread_id));
    second.client().create(&request).await.expect("the same sandbox again");
    assert_eq!(world.cluster.pod_uid("one").await, uid);
    second.client().delete("two").await.unwrap();
    assert_eq!(listed(&second).await, ["one"]);
}

#[test]
fn a_server_that_was_killed_is_followed_by_one_that_knows_all() {
    scenario(async |world| adopts_everything(world, true).await);
}

#[test]
fn a_server_that_ended_in_order_is_followed_by_one_that_knows_all() {
    scenario(async |world| adopts_everything(world, false).await);
}

#[test]
fn creates_under_way_are_finished_before_the_server_ends() {
    scenario(async |world| {
        let server = world.server().await;
        let clients: Vec<_> = (0..12).map(|_| server.client()).collect();
        let requests: Vec<_> = (0..12).map(|n| CreateSandbox::new(format!("drain-{n:02}"))).collect();
        let creates = join_all(clients.iter().zip(&requests).map(|(client, request)| client.create(request)));
        let stop = async {
            // The first write is there: creates are under way.
            wait::until("a create has begun", Duration::from_secs(10), async || {
                if world.cluster.count().await.0 > 0 { Ok(()) } else { Err("no Pod") }
            })
            .await;
            server.stop().await;
        };
        let (answers, ()) = tokio::join!(creates, stop);
        let mut made = 0;
        for answer in answers {
            match answer {
                Ok(_) => made += 1,
                // Connections that came after the signal.
                Err(ClientError::Unreachable { .. }) => {}
                Err(other) => panic!("a create under way was answered with {other:?}"),
            }
        }
        assert!(made > 0);
        let (pods, services) = world.cluster.count().await;
        assert_eq!(pods, services, "an ending server left half a sandbox");
        assert!(pods >= made);
    });
}

#[test]
fn a_server_without_its_cluster_starts_says_so_and_ends_in_order() {
    scenario(async |world| {
        // A port of loopback that nobody listens on.
        let server = world.spawn_with(&[("K8S_API_SERVER", "https://127.0.0.1:9")]);
        let health = format!("{}/health", server.url);
        wait::until("it lives", Duration::from_secs(20), async || stockade_e2e::http::get(&health).await)
            .await;
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status, 503, "{}", ready.text());
        let get = server.get("/api/sandboxes/x").await;
        assert_eq!(get.status, 503, "an unknown state is not a 404: {}", get.text());
        assert_eq!(server.get("/api/sandboxes").await.status, 503);
        assert!(
            get.json()["detail"].as_str().is_some_and(|detail| detail.contains("127.0.0.1:9")),
            "{}",
            get.text()
        );
        let create = server.post("/api/sandboxes", &serde_json::json!({"sandbox_id": "x"})).await;
        assert_eq!(create.status, 503, "{}", create.text());
    });
}

#[test]
fn a_bad_setting_stops_the_start_and_names_variable_and_value() {
    scenario(async |world| {
        for (name, value) in [
            ("DEER_FLOW_HOST_BASE_DIR", "relative/path"),
            ("SANDBOX_SERVICE_TYPE", "LoadBalancer"),
            ("SANDBOX_CONTAINER_PORT", "70000"),
            ("K8S_NAMESPACE", "Not_A_Label"),
            ("MOUNT_CONTRACT_VERSION", "7"),
            ("KUBECONFIG_PATH", world.dirs.base()),
        ] {
            let output = tokio::process::Command::new(&world.run.binary)
                .args(["serve", "--listen", "127.0.0.1:0"])
                .env_clear()
                .envs(world.environment())
                .env(name, value)
                .kill_on_drop(true)
                .output();
            let output =
                tokio::time::timeout(Duration::from_secs(10), output).await.expect("it ends").unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && said.contains(name) && said.contains(value),
                "{name}: {said}"
            );
        }
    });
}
