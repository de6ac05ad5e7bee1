//! Processes of ours that are killed at any instant.

use std::collections::BTreeMap;
use std::time::Duration;

use stockade_api::CreateSandbox;
use stockade_e2e::{http, wait};

use super::server::{with_each_server, with_server};
use super::usual::kill;
use crate::sandbox::Sandbox;

#[test]
fn sandboxes_and_their_addresses_outlive_the_server() {
    with_each_server(async |server| {
        let client = server.client();
        let made = client.create(&CreateSandbox::new("s1")).await.unwrap();
        let process = server.main_process("s1");
        server.kill().await;
        let url = format!("{}/v1/sandbox", made.sandbox_url);
        assert_eq!(http::get(&url).await.unwrap().status, 200);
        server.start_again().await;
        let found = client.get("s1").await.unwrap().unwrap();
        assert_eq!((found.sandbox_url, found.status.as_ref()), (made.sandbox_url, "Running"));
        assert_eq!(server.main_process("s1"), process, "the same processes");
        assert_eq!(http::get(&url).await.unwrap().status, 200);
    });
}

#[test]
fn after_the_machine_was_restarted_a_sandbox_starts_for_whoever_connects_with_its_files() {
    with_each_server(async |server| {
        let client = server.client();
        let mut urls = Vec::new();
        for id in ["s1", "s2"] {
            let url = client.create(&CreateSandbox::new(id)).await.unwrap().sandbox_url.into_owned();
            Sandbox::new(id.to_owned(), url.clone())
                .sh("echo kept > ~/file; echo shared > /mnt/user-data/file")
                .await;
            urls.push(url);
        }
        server.reboot(&["s1", "s2"]).await;
        let waiting = client.get("s1").await.unwrap().unwrap();
        assert_eq!(
            (&*waiting.sandbox_url, waiting.status.as_ref(), waiting.ready),
            (&*urls[0], "Pending", false)
        );
        // One by a connection to its address, the other by a create.
        let read = Sandbox::new("s1".to_owned(), urls[0].clone()).sh("cat ~/file /mnt/user-data/file").await;
        assert_eq!(read.stdout, "kept\nshared\n");
        let again = client.create_ready(&CreateSandbox::new("s2"), Duration::from_secs(20)).await.unwrap();
        assert_eq!((&*again.sandbox_url, again.ready), (&*urls[1], true), "{again:?}");
        let read = Sandbox::new("s2".to_owned(), urls[1].clone()).sh("cat ~/file").await;
        assert_eq!(read.stdout, "kept\n");
    });
}

#[test]
fn a_relay_that_is_killed_comes_back_with_all_ports() {
    with_server(async |server| {
        let client = server.client();
        let mut urls = Vec::new();
        for number in 0..5 {
            let made = client.create(&CreateSandbox::new(format!("s{number}"))).await.unwrap();
            urls.push(format!("{}/v1/sandbox", made.sandbox_url));
        }
        for relay in server.helpers("stockade-relay") {
            kill(relay);
        }
        for url in urls {
            wait::until("the port leads there again", Duration::from_secs(30), async || {
                let answer = http::get(&url).await?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
    });
}

#[test]
fn an_address_that_somebody_else_has_is_said_and_had_again_when_it_is_free() {
    with_server(async |server| {
        let client = server.client();
        let url = client.create(&CreateSandbox::new("s1")).await.unwrap().sandbox_url.into_owned();
        let relays = server.helpers("stockade-relay");
        server.kill().await;
        relays.into_iter().for_each(kill);
        let address = url.strip_prefix("http://").unwrap();
        // Free as soon as the relay is gone.
        let taken = wait::until("the port is free", Duration::from_secs(10), async || {
            std::net::TcpListener::bind(address).map_err(|error| error.to_string())
        })
        .await;
        server.start_again().await;
        let lost = client.get("s1").await.unwrap().unwrap();
        assert_eq!((&*lost.sandbox_url, lost.ready), (&*url, false), "{lost:?}");
        assert_eq!(lost.reason.as_deref(), Some("AddressLost"), "{lost:?}");
        drop(taken);
        wait::until("it has its address again", Duration::from_secs(30), async || {
            let sandbox = client.get("s1").await.unwrap().unwrap();
            if sandbox.ready { Ok(()) } else { Err(format!("{sandbox:?}")) }
        })
        .await;
        assert_eq!(http::get(&format!("{url}/v1/sandbox")).await.unwrap().status, 200);
    });
}

#[test]
fn a_launcher_that_is_killed_is_replaced_and_sandboxes_live_on() {
    with_server(async |server| {
        let client = server.client();
        let first = client.create(&CreateSandbox::new("s1")).await.unwrap();
        for launcher in server.helpers("stockade-launcher") {
            kill(launcher);
        }
        let second = client.create(&CreateSandbox::new("s2")).await.unwrap();
        for sandbox in [first, second] {
            let answer = http::get(&format!("{}/v1/sandbox", sandbox.sandbox_url)).await.unwrap();
            assert_eq!(answer.status, 200);
        }
    });
}

/// What a caller was told is there after any kill; what it was not told is there whole, or not at all.
#[test]
fn a_server_killed_at_any_instant_loses_nothing_and_leaves_nothing() {
    const ROUNDS: u64 = 25;
    with_server(async |server| {
        let client = server.client();
        let mut alive: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..ROUNDS {
            let ids: Vec<String> = (0..4).map(|number| format!("r{round}-{number}")).collect();
            let creates = ids.iter().map(|id| {
                let client = &client;
                async move { (id.clone(), client.create(&CreateSandbox::new(id.clone())).await) }
            });
            let gone: Vec<String> = alive.keys().take(1).cloned().collect();
            let deletes = gone.iter().map(|id| client.delete(id));
            // A different instant each time, from before the first step to after the last.
            let work =
                futures::future::join(futures::future::join_all(creates), futures::future::join_all(deletes));
            let kill = async {
                tokio::time::sleep(Duration::from_millis(round * 4)).await;
                server.kill().await;
            };
            let ((made, deleted), ()) = futures::future::join(work, kill).await;
            for (id, result) in made {
                if let Ok(sandbox) = result {
                    alive.insert(id, sandbox.sandbox_url.into_owned());
                }
            }
            for (id, result) in gone.iter().zip(deleted) {
                if result.is_ok() {
                    alive.remove(id);
                }
            }
            server.start_again().await;
            check(&client, &mut alive, &gone, &ids).await;
        }
        for id in alive.keys() {
            client.delete(id).await.unwrap();
        }
        server.nothing_left().await;
    });
}

/// What was told is there, at its address; the rest of what was under way is whole or absent.
async fn check(
    client: &stockade_api::client::Client,
    alive: &mut BTreeMap<String, String>,
    gone: &[String],
    asked: &[String],
) {
    for id in gone {
        // Whether it was told or not, it may be told again.
        client.delete(id).await.unwrap();
        alive.remove(id);
    }
    let listed = client.list().await.unwrap().sandboxes;
    for sandbox in &listed {
        let id = sandbox.sandbox_id.as_ref();
        assert!(alive.contains_key(id) || asked.iter().any(|asked| asked == id), "{id} is nobody's");
        alive.insert(id.to_owned(), sandbox.sandbox_url.clone().into_owned());
    }
    for (id, url) in &*alive {
        let found = listed.iter().find(|sandbox| sandbox.sandbox_id == *id);
        let found = found.unwrap_or_else(|| panic!("{id} is lost"));
        assert_eq!(found.sandbox_url, *url, "{id} has moved");
        let answer = http::get(&format!("{url}/v1/sandbox")).await.unwrap();
        assert_eq!(answer.status, 200, "{id}");
    }
    while alive.len() > 20 {
        let Some((id, _)) = alive.pop_first() else { break };
        client.delete(&id).await.unwrap();
    }
}
