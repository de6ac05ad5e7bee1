//! What an API server that fails comes to.

use stockade_core::{Backend, BackendError};
use stockade_kubernetes::testing::Fault;

use super::support::{id, until, world, world_unproven};

async fn create_error(fault: Fault) -> BackendError {
    let world = world().await;
    world.api.fail("create", "pods", fault, usize::MAX);
    world.create("a").await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn each_status_of_the_api_server_has_its_own_error() {
    for (code, reason, message, expect) in [
        (401, "Unauthorized", "Unauthorized", "backend_forbidden"),
        (403, "Forbidden", "pods is forbidden: User \"x\" cannot create", "backend_forbidden"),
        (403, "Forbidden", "exceeded quota: sandboxes", "quota_exceeded"),
        (422, "Invalid", "spec.containers[0].image: Required value", "backend_rejected"),
        (429, "TooManyRequests", "slow down", "overloaded"),
        (500, "InternalError", "etcdserver: no leader", "backend_unreachable"),
        (503, "ServiceUnavailable", "apiserver is shutting down", "backend_unreachable"),
        (504, "Timeout", "request timed out", "backend_unreachable"),
    ] {
        let error = create_error(Fault::status(code, reason, message)).await;
        assert_eq!(error.code(), expect, "{code} {error}");
        if code != 429 {
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_ends_the_create_in_time() {
    let started = tokio::time::Instant::now();
    let error = create_error(Fault::Hang).await;
    assert_eq!(error.code(), "backend_unreachable");
    assert!(error.to_string().contains("https://127.0.0.1:6443"), "{error}");
    assert!(started.elapsed().as_secs() < 25);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_names_the_variable_that_mends_it() {
    let error = create_error(Fault::Disconnect).await;
    assert_eq!(error.code(), "backend_unreachable");
    let text = error.to_string();
    assert!(text.contains("connection refused") && text.contains("K8S_API_SERVER"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_short_throttle_is_waited_out() {
    let world = world().await;
    world.api.fail("create", "pods", Fault::status(429, "TooManyRequests", "slow down"), 2);
    world.create("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_missing_pod_is_never_said_while_the_api_server_fails() {
    let world = world().await;
    world.api.fail("get", "pods", Fault::status(500, "InternalError", "no leader"), usize::MAX);
    assert_eq!(world.backend.get(&id("a")).await.unwrap_err().code(), "backend_unreachable");
    assert_eq!(world.backend.reconcile(&id("a")).await.unwrap_err().code(), "backend_unreachable");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_watch_events_everything_else_works() {
    let world = world_unproven();
    let fault = Fault::status(403, "Forbidden", "events is forbidden: User \"x\" cannot list");
    world.api.fail("list", "events", fault.clone(), usize::MAX);
    world.api.fail("watch", "events", fault, usize::MAX);
    until(&world, |backend| backend.health().ready).await;
    world.create("a").await.unwrap();
    assert_eq!(world.listed().await, ["a"]);
    assert_eq!(world.backend.events(&id("a")).await.unwrap_err().code(), "backend_forbidden");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_see_the_namespace_only_reconciliation_is_lost() {
    let world = world_unproven();
    let fault =
        Fault::status(403, "Forbidden", "namespaces \"deer-flow\" is forbidden: User \"x\" cannot get");
    world.api.fail("get", "namespaces", fault, usize::MAX);
    until(&world, |backend| backend.health().ready).await;
    world.create("a").await.unwrap();
    assert_eq!(world.backend.reconcile(&id("a")).await.unwrap_err().code(), "backend_forbidden");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_down_at_the_start_is_waited_for() {
    let world = world_unproven();
    for resource in ["pods", "services"] {
        world.api.fail("list", resource, Fault::Disconnect, 20);
    }
    assert!(!world.backend.health().ready);
    until(&world, |backend| backend.health().ready).await;
}

#[tokio::test(start_paused = true)]
async fn reconciliation_is_the_truth_and_says_where() {
    let world = world().await;
    world.create("a").await.unwrap();
    let truth = world.backend.reconcile(&id("a")).await.unwrap();
    let found = truth.found.unwrap();
    assert_eq!(found.incarnation, world.pod_uid("a").unwrap().as_str().unwrap());
    assert_eq!(found.url.as_deref(), Some("http://node:30001"));
    world.api.take_unheard("services", "sandbox-a-svc");
    assert_eq!(world.backend.reconcile(&id("a")).await.unwrap().found.unwrap().url, None);
    world.api.take_unheard("pods", "sandbox-a");
    let gone = world.backend.reconcile(&id("a")).await.unwrap();
    assert_eq!(gone.found, None);
    assert_eq!(gone.backend_namespace, truth.backend_namespace);
}
