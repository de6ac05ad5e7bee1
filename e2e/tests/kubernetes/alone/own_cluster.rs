//! Faults that would disturb everybody else on a cluster.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use stockade_api::CreateSandbox;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

use crate::support::listed;

/// Memory answers for 10 s without a proof of freshness; what is measured around that takes a little too.
const STALE: Duration = Duration::from_secs(20);

#[test]
fn an_api_server_that_is_away_loses_nothing_and_never_makes_a_404() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let kept = client.create(&CreateSandbox::new("kept")).await.unwrap();
        let testbox = world.enter(&kept).await;
        client.create(&CreateSandbox::new("also")).await.unwrap();
        let faults = world.faults();

        faults.kill("apiserver").await;
        let killed = Instant::now();
        let first = server.get("/api/sandboxes/kept").await;
        assert_eq!(first.status, 200, "memory answers at first: {}", first.text());
        // Then it cannot be relied on any more, and that is said; at no time is a sandbox denied.
        let mut unavailable = 0;
        while killed.elapsed() < STALE {
            let get = server.get("/api/sandboxes/kept").await;
            assert!(matches!(get.status, 200 | 503), "{} {}", get.status, get.text());
            if get.status == 200 {
                assert!(unavailable == 0, "memory that was given up answers again without a proof");
                assert!(killed.elapsed() < Duration::from_secs(12), "an answer from memory older than 10 s");
            } else {
                unavailable += 1;
            }
            let list = server.get("/api/sandboxes").await;
            match list.status {
                200 => assert_eq!(list.json()["count"], 2, "the list shrank: {}", list.text()),
                status => assert_eq!(status, 503, "{}", list.text()),
            }
            let absent = server.get("/api/sandboxes/absent").await;
            assert_eq!(absent.status, 503, "nobody can know that: {}", absent.text());
            let truth = server.get("/api/reconciliation/sandboxes/kept").await;
            assert_eq!(truth.status, 503, "no truth can be had: {}", truth.text());
        }
        assert!(unavailable > 0, "the server never said that it does not know");
        assert_eq!(server.get("/readyz").await.status, 503);
        assert_eq!(server.get("/health").await.status, 200);
        let create = server.post("/api/sandboxes", &serde_json::json!({"sandbox_id": "new"})).await;
        assert_eq!(create.status, 503, "{}", create.text());
        assert!(testbox.host_name().await.is_ok(), "sandboxes need no API server");

        faults.end_outage().await;
        server.wait_ready().await;
        assert_eq!(listed(&server).await, ["also", "kept"]);
        assert_eq!(client.get("kept").await.unwrap().expect("kept").sandbox_url, kept.sandbox_url);
        let new = client.create(&CreateSandbox::new("new")).await.expect("creates work again");
        world.enter(&new).await;
        client.delete("kept").await.unwrap();
        world.wait_gone("kept").await;
    });
}

#[test]
fn a_server_that_starts_while_the_api_server_is_away_serves_when_it_is_back() {
    scenario(async |world| {
        let first = world.server().await;
        let sandbox = first.client().create(&CreateSandbox::new("early")).await.unwrap();
        first.stop().await;
        let faults = world.faults();
        faults.kill("apiserver").await;
        let second = world.spawn_with(&[]);
        let health = format!("{}/health", second.url);
        wait::until("it lives", Duration::from_secs(20), async || stockade_e2e::http::get(&health).await)
            .await;
        assert_eq!(second.get("/api/sandboxes/early").await.status, 503);
        assert_eq!(second.get("/api/sandboxes").await.status, 503);
        faults.end_outage().await;
        second.wait_ready().await;
        assert_eq!(
            second.client().get("early").await.unwrap().expect("early").sandbox_url,
            sandbox.sandbox_url
        );
    });
}

#[test]
fn a_short_absence_of_the_api_server_is_not_noticed_by_readers() {
    scenario(async |world| {
        let server = world.server().await;
        server.client().create(&CreateSandbox::new("short")).await.unwrap();
        let faults = world.faults();
        let outage = async {
            faults.kill("apiserver").await;
            faults.start("apiserver").await;
        };
        let readers = async {
            wait::throughout("get and list answer", Duration::from_secs(8), async || {
                let get = server.get("/api/sandboxes/short").await;
                let list = server.get("/api/sandboxes").await;
                match (get.status, list.status, list.json()["count"].as_u64()) {
                    // A machine so slow that the API server needs 10 s to come back may say 503.
                    (200 | 503, 200, Some(1)) | (200 | 503, 503, _) => Ok(()),
                    _ => Err(format!("{} {}", get.text(), list.text())),
                }
            })
            .await;
        };
        tokio::join!(outage, readers);
        server.wait_ready().await;
        assert_eq!(listed(&server).await, ["short"]);
    });
}

#[test]
fn a_sandbox_that_no_node_takes_says_so_and_starts_when_one_does() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let nodes: Api<Node> = Api::all(world.cluster.client.clone());
        let names: Vec<String> = nodes
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        for name in &names {
            nodes.cordon(name).await.unwrap();
        }
        client.create(&CreateSandbox::new("room")).await.unwrap();
        let looked = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let sandbox = client.get("room").await.unwrap().expect("the sandbox");
                if sandbox.reason.as_deref() == Some("Unschedulable") {
                    return sandbox;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        // Before anything else may fail: others need the nodes.
        for name in &names {
            nodes.uncordon(name).await.unwrap();
        }
        let sandbox = looked.expect("the reason Unschedulable within 30 s");
        let message = sandbox.message.as_deref().unwrap_or_default();
        assert!(message.contains("No node takes the sandbox"), "{message}");
        world.enter(&sandbox).await;
    });
}
