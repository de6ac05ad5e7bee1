//! Deletes.

use stockade_core::{Backend, BackendError};
use stockade_kubernetes::testing::Fault;

use super::support::{id, pass, until, world};

#[tokio::test(start_paused = true)]
async fn a_delete_is_two_writes_with_uid_and_grace() {
    let world = world().await;
    world.create("a").await.unwrap();
    let uid = world.pod_uid("a").unwrap();
    world.api.forget_calls();
    world.backend.delete(&id("a")).await.unwrap();
    let calls = world.api.calls();
    let mut summaries = world.summaries();
    summaries.sort();
    assert_eq!(summaries, ["delete pods", "delete services"]);
    let pod = calls.iter().find(|call| call.resource == "pods").unwrap();
    assert_eq!(pod.body["preconditions"]["uid"], uid);
    assert_eq!(pod.body["gracePeriodSeconds"], 5);
    assert!(calls.iter().all(|call| call.body["preconditions"]["uid"].is_string()));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_sandbox_is_gone_from_every_answer_at_once() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.make_ready("a");
    pass(1).await;
    world.backend.delete(&id("a")).await.unwrap();
    assert!(world.listed().await.is_empty());
    assert!(world.backend.get(&id("a")).await.unwrap().is_none());
    pass(1).await;
    assert!(world.listed().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_not_there_is_deleted_with_success() {
    let world = world().await;
    world.backend.delete(&id("a")).await.unwrap();
    assert!(!world.summaries().iter().any(|call| call.starts_with("delete")));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_the_index_does_not_know_yet_is_deleted_too() {
    let world = world().await;
    world.create("a").await.unwrap();
    let (pod, service) = (world.api.objects("pods").remove(0), world.api.objects("services").remove(0));
    world.api.take("pods", "sandbox-a");
    world.api.take("services", "sandbox-a-svc");
    until(&world, |backend| backend.health().sandboxes == 0).await;
    world.api.kill_watches_silently();
    world.api.put("pods", pod);
    world.api.put("services", service);
    world.backend.delete(&id("a")).await.unwrap();
    assert!(world.api.objects("services").is_empty());
    assert!(!world.api.objects("pods")[0]["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_removed_is_named() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.fail("delete", "services", Fault::status(500, "InternalError", "etcd is full"), 1);
    let error = world.backend.delete(&id("a")).await.unwrap_err();
    assert!(matches!(error, BackendError::PartialCleanup { .. }));
    let text = error.to_string();
    assert!(text.starts_with("Partial cleanup: service: ") && text.contains("etcd is full"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_was_made_anew_meanwhile_is_deleted_by_its_own_uid() {
    let world = world().await;
    world.create("a").await.unwrap();
    let pod = world.api.objects("pods").remove(0);
    world.api.kill_watches_silently();
    world.api.take("pods", "sandbox-a");
    world.api.put("pods", pod);
    world.api.forget_calls();
    world.backend.delete(&id("a")).await.unwrap();
    assert!(!world.api.objects("pods")[0]["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_objects_of_our_names_are_left_alone() {
    let world = world().await;
    let foreign =
        serde_json::json!({ "metadata": { "name": "sandbox-a", "labels": { "app": "other" } }, "spec": {} });
    world.api.put("pods", foreign);
    world.backend.delete(&id("a")).await.unwrap();
    assert!(world.api.objects("pods")[0]["metadata"]["deletionTimestamp"].is_null());
    let error = world.create("a").await.unwrap_err();
    assert!(matches!(error, BackendError::Conflict { .. }), "{error}");
}
