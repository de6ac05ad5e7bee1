//! Creates.

use futures::future::join_all;
use serde_json::json;
use stockade_core::backend::Conflict;
use stockade_core::{Backend, BackendError, SandboxSpec, Status, UserId};
use stockade_kubernetes::testing::Fault;

use super::support::{id, in_seconds, pass, until, world};

#[tokio::test(start_paused = true)]
async fn a_cold_create_is_two_writes_and_no_read() {
    let world = world().await;
    let sandbox = world.create("a").await.unwrap();
    assert_eq!(world.summaries(), ["create pods", "create services"]);
    assert_eq!(sandbox.url, "http://node:30001");
    let service = &world.api.objects("services")[0];
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], world.pod_uid("a").unwrap());
    assert!(service["metadata"]["ownerReferences"][0].get("blockOwnerDeletion").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_create_is_visible_to_the_next_read_without_a_call() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.forget_calls();
    assert_eq!(world.backend.get(&id("a")).await.unwrap().unwrap().status, Status::Pending);
    assert_eq!(world.listed().await, ["a"]);
    assert!(world.summaries().is_empty(), "{:?}", world.summaries());
}

#[tokio::test(start_paused = true)]
async fn twenty_parallel_creates_of_one_id_make_one_sandbox() {
    let world = world().await;
    let answers = join_all((0..20).map(|_| world.create("a"))).await;
    let urls: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().url.clone()).collect();
    assert!(urls.iter().all(|url| *url == urls[0]));
    assert_eq!((world.api.objects("pods").len(), world.api.objects("services").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn another_replica_that_was_first_is_joined() {
    let world = world().await;
    world.create("a").await.unwrap();
    let pod = world.api.objects("pods").remove(0);
    world.api.take("pods", "sandbox-a");
    world.api.take("services", "sandbox-a-svc");
    until(&world, |backend| backend.health().sandboxes == 0).await;
    // The same Pod, made by another process, whose event has not come yet.
    world.api.kill_watches_silently();
    world.api.put("pods", pod);
    world.api.forget_calls();
    world.create("a").await.unwrap();
    assert_eq!(world.summaries(), ["create pods", "get pods", "create services"]);
    assert_eq!((world.api.objects("pods").len(), world.api.objects("services").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn another_user_is_refused_before_anything_is_written() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.forget_calls();
    let mut spec = SandboxSpec::new(id("a"));
    spec.user = UserId::new("bob").unwrap();
    let error = world.create_spec(&spec).await.unwrap_err();
    assert!(matches!(error, BackendError::Conflict { conflict: Conflict::User, .. }), "{error}");
    assert_eq!(world.summaries(), ["get pods"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_service_is_missing_gets_one() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.take("services", "sandbox-a-svc");
    pass(1).await;
    let sandbox = world.create("a").await.unwrap();
    assert_eq!(sandbox.url, "http://node:30002");
    assert_eq!(world.api.objects("pods").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_removed_again_when_its_service_cannot_be_made() {
    let world = world().await;
    world.api.fail("create", "services", Fault::status(500, "InternalError", "range is full"), 1);
    let error = world.create("a").await.unwrap_err();
    assert!(error.to_string().contains("range is full"), "{error}");
    assert!(!world.api.objects("pods")[0]["metadata"]["deletionTimestamp"].is_null());
    assert!(world.backend.get(&id("a")).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_there_before_is_not_removed_when_its_service_cannot_be_made() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.take("services", "sandbox-a-svc");
    pass(1).await;
    world.api.fail("create", "services", Fault::status(500, "InternalError", "range is full"), 1);
    world.create("a").await.unwrap_err();
    assert!(world.api.objects("pods")[0]["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn create_after_delete_waits_for_the_end_and_makes_a_fresh_sandbox() {
    let world = world().await;
    world.create("a").await.unwrap();
    let first = world.pod_uid("a");
    world.backend.delete(&id("a")).await.unwrap();
    let kubelet = async {
        pass(3).await;
        world.api.take("pods", "sandbox-a");
    };
    let (sandbox, ()) = tokio::join!(world.create("a"), kubelet);
    assert_eq!(sandbox.unwrap().url, "http://node:30002");
    assert_ne!(world.pod_uid("a"), first);
    assert!(world.backend.get(&id("a")).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_watch_does_not_tell_is_seen_all_the_same() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.backend.delete(&id("a")).await.unwrap();
    let kubelet = async {
        pass(1).await;
        world.api.take_unheard("pods", "sandbox-a");
    };
    let (sandbox, ()) = tokio::join!(world.create("a"), kubelet);
    assert!(sandbox.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_former_pod_that_does_not_end_in_time_is_said_so() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.backend.delete(&id("a")).await.unwrap();
    let error = world.create("a").await.unwrap_err();
    assert!(matches!(error, BackendError::Terminating { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_service_of_a_former_pod_is_replaced() {
    let world = world().await;
    world.create("a").await.unwrap();
    // Somebody else deleted the Pod; the garbage collector has not come to the Service yet.
    world.api.take("pods", "sandbox-a");
    pass(1).await;
    let sandbox = world.create("a").await.unwrap();
    assert_eq!(sandbox.url, "http://node:30002");
    let service = &world.api.objects("services")[0];
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], world.pod_uid("a").unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_is_replaced() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.edit("pods", "sandbox-a", |pod| {
        pod["status"] = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
    });
    pass(1).await;
    let seen = world.backend.get(&id("a")).await.unwrap().unwrap();
    assert_eq!((seen.status, seen.reason.as_deref()), (Status::Failed, Some("Evicted")));
    let first = world.pod_uid("a");
    let kubelet = async {
        pass(1).await;
        world.api.take("pods", "sandbox-a");
    };
    let (sandbox, ()) = tokio::join!(world.create("a"), kubelet);
    assert_eq!(sandbox.unwrap().status, Status::Pending);
    assert_ne!(world.pod_uid("a"), first);
}

#[tokio::test(start_paused = true)]
async fn a_missing_namespace_is_made() {
    let world = world().await;
    world.api.take("namespaces", "deer-flow");
    let message = "namespaces \"deer-flow\" not found";
    world.api.fail("create", "pods", Fault::status(404, "NotFound", message), 1);
    world.create("a").await.unwrap();
    assert_eq!(world.api.objects("namespaces").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_that_a_killed_server_left_is_completed() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.take("services", "sandbox-a-svc");
    assert_eq!(world.api.objects("services").len(), 0);
    // The scripted Pod is from November 1st: old enough for the next round of repairs.
    until(&world, |_| world.api.objects("services").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_leads_nowhere_is_not_a_running_sandbox() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.make_ready("a");
    world.api.take("pods", "sandbox-a");
    pass(1).await;
    assert_eq!(world.backend.get(&id("a")).await.unwrap().unwrap().status, Status::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_sandbox_is_ready() {
    let world = world().await;
    world.create("a").await.unwrap();
    let kubelet = async {
        pass(2).await;
        world.make_ready("a");
    };
    let sandbox = id("a");
    let wait = world.backend.wait_ready(&sandbox, in_seconds(25));
    let started = tokio::time::Instant::now();
    let (sandbox, ()) = tokio::join!(wait, kubelet);
    assert!(sandbox.unwrap().ready);
    assert!(started.elapsed().as_secs() < 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_answers_with_the_reason() {
    let world = world().await;
    world.create("a").await.unwrap();
    let sandbox = world.backend.wait_ready(&id("a"), in_seconds(3)).await.unwrap();
    assert_eq!((sandbox.ready, sandbox.reason.as_deref()), (false, Some("Pending")));
}
