//! The answer of a create waits for the sandbox (`SANDBOX_CREATE_WAIT`), as callers feel it.

use std::time::Duration;

use futures::future::join_all;
use stockade_api::CreateSandbox;
use stockade_e2e::server::Server;
use stockade_e2e::testbox::Testbox;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

/// As long as it may be: eight tests share two processors and one kubelet.
const LONG: (&str, &str) = ("SANDBOX_CREATE_WAIT", "20");

/// How many waits ended so.
async fn ended(server: &Server, outcome: &str) -> u64 {
    let text = server.get("/metrics").await.text();
    let line = format!(r#"stockade_kubernetes_create_waits_total{{outcome="{outcome}"}} "#);
    text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[test]
fn the_first_request_to_a_new_sandbox_succeeds() {
    scenario(async |world| {
        let server = world.server_with(&[LONG]).await;
        let made = server.client().create(&CreateSandbox::new("first")).await.unwrap();
        let answer = Testbox::at(&made.sandbox_url).host_name().await;
        // On a machine so busy that even this wait was too short, nothing can be said about the first request.
        if ended(&server, "answered").await == 1 {
            assert_eq!(answer.as_deref(), Ok("sandbox-first"), "{made:?}");
        } else {
            assert!(made.ready || ended(&server, "expired").await == 1, "{made:?}");
        }
    });
}

#[test]
fn creates_of_one_id_get_one_sandbox_and_all_wait() {
    scenario(async |world| {
        let server = world.server_with(&[LONG]).await;
        let client = server.client();
        let all = join_all((0..10).map(|_| async {
            let made = client.create(&CreateSandbox::new("twin")).await.unwrap();
            (made.sandbox_url.to_string(), Testbox::at(&made.sandbox_url).host_name().await)
        }))
        .await;
        assert_eq!(world.cluster.count().await, (1, 1));
        for (url, answer) in &all {
            assert_eq!(url, &all[0].0);
            assert!(answer.is_ok() || ended(&server, "answered").await == 0, "{answer:?}");
        }
    });
}

#[test]
fn where_urls_are_out_of_reach_the_pod_is_waited_for() {
    scenario(async |world| {
        // No one answers there, and no one refuses: an address for documentation. Nor has a name of the cluster.
        for (id, changes) in [
            ("address", [LONG, ("NODE_HOST", "192.0.2.1")]),
            ("name", [LONG, ("NODE_HOST", "no-such-host.invalid")]),
            ("service", [LONG, ("SANDBOX_SERVICE_TYPE", "ClusterIP")]),
        ] {
            let server = world.server_with(&changes).await;
            let made = server.client().create(&CreateSandbox::new(id)).await.unwrap();
            assert!(made.ready || ended(&server, "expired").await == 1, "{made:?}");
            server.client().delete(id).await.unwrap();
        }
    });
}

#[test]
fn what_cannot_start_is_answered_with_its_reason_and_without_the_whole_wait() {
    scenario(async |world| {
        let server = world.server_with(&[LONG, ("SANDBOX_IMAGE", "stockade.local/absent:dev")]).await;
        let made = server.client().create(&CreateSandbox::new("absent")).await.unwrap();
        let said = made.reason.as_deref().unwrap_or_default();
        let is_said = matches!(said, "ErrImagePull" | "ImagePullBackOff");
        assert!(is_said || ended(&server, "expired").await == 1, "{made:?}");
    });
}

#[test]
fn a_caller_that_hangs_up_leaves_a_whole_sandbox() {
    scenario(async |world| {
        let server = world.server_with(&[LONG]).await;
        let client = server.client();
        let request = CreateSandbox::new("left");
        let hung_up = tokio::time::timeout(Duration::from_millis(300), client.create(&request)).await;
        assert!(hung_up.is_err() || hung_up.is_ok_and(|made| made.is_ok()));
        wait::until("both halves are there", Duration::from_secs(30), async || {
            if world.cluster.count().await == (1, 1) { Ok(()) } else { Err("not yet") }
        })
        .await;
        world.enter(&client.create(&request).await.unwrap()).await;
    });
}

#[test]
fn without_a_wait_the_answer_comes_after_the_two_writes() {
    scenario(async |world| {
        let server = world.server_with(&[("SANDBOX_CREATE_WAIT", "0")]).await;
        let made = server.client().create(&CreateSandbox::new("at-once")).await.unwrap();
        assert!(!made.ready, "{made:?}");
        for outcome in ["answered", "ready", "expired", "stuck"] {
            assert_eq!(ended(&server, outcome).await, 0, "{outcome}");
        }
    });
}
