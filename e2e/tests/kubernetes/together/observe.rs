//! Looking into a sandbox: what it wrote, what happened to it, how the server is.

use std::time::Duration;

use stockade_api::CreateSandbox;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

#[test]
fn the_log_is_what_the_sandbox_wrote_and_the_previous_one_what_it_wrote_before() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&CreateSandbox::new("log")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        let log = server.get("/api/sandboxes/log/logs").await;
        assert_eq!(log.status, 200, "{}", log.text());
        assert!(log.text().contains("listening on 0.0.0.0:8080"), "{:?}", log.text());
        testbox.crash(3).await;
        let previous = wait::until("there is a previous log", Duration::from_secs(30), async || {
            let answer = server.get("/api/sandboxes/log/logs?previous=true&tail=10").await;
            if answer.status == 200 { Ok(answer.text()) } else { Err(answer.text()) }
        })
        .await;
        assert!(previous.contains("listening on"), "{previous:?}");
        assert_eq!(server.get("/api/sandboxes/nobody/logs").await.status, 404);
        assert_eq!(server.get("/api/sandboxes/log/logs?tail=x").await.status, 422);
    });
}

#[test]
fn events_tell_what_the_cluster_did() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&CreateSandbox::new("ev")).await.unwrap();
        world.enter(&sandbox).await;
        let events = server.client().events("ev").await.unwrap().events;
        for reason in ["Scheduled", "Started"] {
            assert!(events.iter().any(|event| event.reason == reason), "no {reason} in {events:?}");
        }
        assert_eq!(server.get("/api/sandboxes/nobody/events").await.status, 404);
    });
}

#[test]
fn reads_cost_the_cluster_nothing() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        client.create(&CreateSandbox::new("cheap")).await.unwrap();
        let direct = "stockade_kubernetes_direct_reads_total";
        let before = server.metric(direct).await;
        assert!(before.is_some(), "{}", server.get("/metrics").await.text());
        for _ in 0..50 {
            client.get("cheap").await.unwrap().expect("the sandbox");
            client.list().await.unwrap();
        }
        assert_eq!(server.metric(direct).await, before);
    });
}

#[test]
fn the_description_of_the_api_is_served() {
    scenario(async |world| {
        let server = world.server().await;
        let description = server.get("/openapi.json").await.json();
        assert!(description["paths"].get("/api/sandboxes/{id}").is_some());
        assert_eq!(server.get("/docs").await.status, 200);
    });
}
