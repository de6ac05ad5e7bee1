//! The whole server in front of a scripted API server: what a caller sees of each thing that can go wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use serde_json::{Value, json};
use stockade_core::path::HostPath;
use stockade_core::{Backend, ContractVersion};
use stockade_kubernetes::KubernetesBackend;
use stockade_kubernetes::testing::{Fault, ScriptedApi, settings};
use stockade_server::{Access, AllowedHosts, ServerSettings, ServerState, router};
use tower::ServiceExt;

const KEY: &str = "a-key-of-this-test";

struct World {
    api: ScriptedApi,
    backend: Arc<KubernetesBackend>,
    router: Router,
}

async fn world_of(contract: ContractVersion) -> World {
    let (client, api) = ScriptedApi::start("deer-flow");
    let mut registry = Registry::default();
    let settings = settings(contract, &HostPath::new("/srv/df").unwrap());
    let server = "https://127.0.0.1:6443".to_owned();
    let backend = KubernetesBackend::with_client(settings, client, server, &mut registry);
    let access = Access::key(&SecretString::from(KEY));
    let state = ServerState::new(
        Arc::clone(&backend) as Arc<dyn Backend>,
        ServerSettings { access, allowed_hosts: AllowedHosts::default(), metrics_need_key: false },
        registry,
    );
    let world = World { api, backend, router: router(state) };
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while !world.backend.health().ready {
        assert!(tokio::time::Instant::now() < limit, "{:?}", world.backend.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world
}

async fn world() -> World {
    world_of(ContractVersion::V2).await
}

struct Answer {
    status: StatusCode,
    retry_after: bool,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

impl World {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8002")
            .header("x-api-key", KEY);
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let retry_after = parts.headers.contains_key(header::RETRY_AFTER);
        Answer { status: parts.status, retry_after, text }
    }

    async fn create(&self, body: Value) -> Answer {
        self.call("POST", "/api/sandboxes", Some(body)).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_lives_through_the_contract() {
    let world = world().await;
    let made = world.create(json!({ "sandbox_id": "a1", "thread_id": "t1", "user_id": "alice" })).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let made = made.json();
    assert_eq!(
        [&made["sandbox_id"], &made["sandbox_url"], &made["status"], &made["user_id"], &made["thread_id"]],
        ["a1", "http://node:30001", "Pending", "alice", "t1"]
    );
    assert_eq!(made["mount_contract_version"], 2);
    assert_eq!(world.call("GET", "/api/sandboxes/a1", None).await.json(), made);
    let list = world.call("GET", "/api/sandboxes", None).await.json();
    assert_eq!(list, json!({ "sandboxes": [made], "count": 1 }));
    let truth = world.call("GET", "/api/reconciliation/sandboxes/a1", None).await.json();
    assert_eq!([&truth["status"], &truth["sandbox_url"]], ["found", "http://node:30001"]);
    let deleted = world.call("DELETE", "/api/sandboxes/a1", None).await.json();
    assert_eq!(deleted, json!({ "ok": true, "sandbox_id": "a1" }));
    let gone = world.call("GET", "/api/sandboxes/a1", None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(gone.json()["detail"], "Sandbox 'a1' not found");
}

#[tokio::test(start_paused = true)]
async fn contract_1_answers_as_its_generation_did() {
    let world = world_of(ContractVersion::V1).await;
    let body = json!({ "sandbox_id": "a1", "required_mount_contract_version": 2 });
    let made = world.create(body).await.json();
    for key in ["user_id", "thread_id", "mount_contract_version"] {
        assert_eq!(made.get(key), None, "{made}");
    }
    let capabilities = world.call("GET", "/api/capabilities", None).await.json();
    assert_eq!(capabilities, json!({ "lark_cli_init_image": false, "lark_cli_broker_image": false }));
}

#[tokio::test(start_paused = true)]
async fn each_conflict_says_what_differs() {
    let world = world().await;
    world.create(json!({ "sandbox_id": "a1", "thread_id": "t1", "user_id": "alice" })).await;
    for (body, part) in [
        (json!({ "sandbox_id": "a1", "thread_id": "t1", "user_id": "bob" }), "another user"),
        (json!({ "sandbox_id": "a1", "thread_id": "t2", "user_id": "alice" }), "another thread"),
        (
            json!({ "sandbox_id": "a1", "thread_id": "t1", "user_id": "alice", "extra_mounts": [
                { "host_path": "/srv/df/x", "container_path": "/mnt/acp-workspace" },
            ]}),
            "incompatible or unverifiable",
        ),
    ] {
        let answer = world.create(body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_mount_names_field_and_value_before_any_call() {
    let world = world().await;
    world.api.forget_calls();
    let mount = |host: &str, container: &str| json!({ "sandbox_id": "a1", "extra_mounts": [{ "host_path": host, "container_path": container }] });
    for (body, part) in [
        (mount("/etc", "/mnt/acp-workspace"), "host_path \"/etc\""),
        (mount("/srv/df/x", "/etc"), "container_path \"/etc\""),
        (mount("/srv/df/x", "/mnt/user-data/.upload-conversions"), "read-only"),
    ] {
        let answer = world.create(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{}", answer.text);
    }
    assert!(!world.api.calls().iter().any(|call| call.summary().starts_with("create")));
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_the_api_server_has_its_status() {
    for (fault, expect, code) in [
        (Fault::status(401, "Unauthorized", "Unauthorized"), 500, "backend_forbidden"),
        (Fault::status(403, "Forbidden", "User \"x\" cannot create pods"), 500, "backend_forbidden"),
        (Fault::status(403, "Forbidden", "violates PodSecurity"), 500, "backend_rejected"),
        (Fault::status(404, "", "404 page not found"), 503, "backend_unreachable"),
        (Fault::status(403, "Forbidden", "exceeded quota: q"), 503, "quota_exceeded"),
        (Fault::status(422, "Invalid", "image: Required value"), 500, "backend_rejected"),
        (Fault::status(429, "TooManyRequests", "slow down"), 429, "overloaded"),
        (Fault::status(500, "InternalError", "no leader"), 503, "backend_unreachable"),
        (Fault::status(503, "ServiceUnavailable", "stopping"), 503, "backend_unreachable"),
        (Fault::status(504, "Timeout", "timed out"), 503, "backend_unreachable"),
        (Fault::Hang, 503, "backend_unreachable"),
        (Fault::Disconnect, 503, "backend_unreachable"),
    ] {
        let world = world().await;
        world.api.fail("create", "pods", fault.clone(), usize::MAX);
        let answer = world.create(json!({ "sandbox_id": "a1" })).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (expect, &json!(code)), "{fault:?}");
        assert_eq!(answer.retry_after, matches!(expect, 429 | 503), "{fault:?}");
        assert!(!answer.text.contains(KEY));
    }
}

#[tokio::test(start_paused = true)]
async fn every_read_of_a_failing_api_server_is_an_error_and_never_an_absence() {
    let world = world().await;
    for resource in ["pods", "services"] {
        world.api.fail("get", resource, Fault::status(500, "InternalError", "no leader"), usize::MAX);
    }
    for path in ["/api/sandboxes/a1", "/api/reconciliation/sandboxes/a1", "/api/sandboxes/a1/logs"] {
        let answer = world.call("GET", path, None).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    let answer = world.call("DELETE", "/api/sandboxes/a1", None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_removed_is_a_partial_cleanup() {
    let world = world().await;
    world.create(json!({ "sandbox_id": "a1" })).await;
    for (resource, times) in [("pods", 1), ("services", 1)] {
        world.api.fail("delete", resource, Fault::status(500, "InternalError", "no leader"), times);
    }
    let answer = world.call("DELETE", "/api/sandboxes/a1", None).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("Partial cleanup: pod: ") && detail.contains(", service: "), "{detail}");
    let again = world.call("DELETE", "/api/sandboxes/a1", None).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
}

#[tokio::test(start_paused = true)]
async fn a_former_sandbox_that_does_not_end_is_said_within_the_callers_time() {
    let world = world().await;
    world.create(json!({ "sandbox_id": "a1" })).await;
    world.call("DELETE", "/api/sandboxes/a1", None).await;
    let started = tokio::time::Instant::now();
    let answer = world.create(json!({ "sandbox_id": "a1" })).await;
    assert_eq!((answer.status.as_u16(), answer.retry_after), (503, true), "{}", answer.text);
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_no_half() {
    let world = world().await;
    {
        let create = world.create(json!({ "sandbox_id": "a1" }));
        futures::pin_mut!(create);
        assert!(futures::poll!(&mut create).is_pending());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.api.objects("pods").len(), world.api.objects("services").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn creates_that_wait_for_a_dead_node_keep_nobody_from_creating() {
    let world = world().await;
    let names: Vec<String> = (0..100).map(|number| format!("old-{number}")).collect();
    for name in &names {
        world.create(json!({ "sandbox_id": name })).await;
        world.call("DELETE", &format!("/api/sandboxes/{name}"), None).await;
    }
    // Their Pods never end: the kubelet of their node is gone.
    let waiting = names.iter().map(|name| world.create(json!({ "sandbox_id": name })));
    let waiting = futures::future::join_all(waiting);
    let fresh = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = tokio::time::Instant::now();
        let answer = world.create(json!({ "sandbox_id": "new" })).await;
        (answer.status, started.elapsed())
    };
    let (waited, (status, took)) = tokio::join!(waiting, fresh);
    assert_eq!(status, StatusCode::OK);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(waited.iter().all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_there_yet_is_the_callers_to_wait_for() {
    let world = world().await;
    world.create(json!({ "sandbox_id": "a1" })).await;
    let said = "container \"sandbox\" in pod \"sandbox-a1\" is waiting to start: ImagePullBackOff";
    world.api.fail("get", "pods", Fault::status(400, "BadRequest", said), 1);
    let answer = world.call("GET", "/api/sandboxes/a1/logs", None).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::CONFLICT, &json!("not_ready")));
    assert!(answer.text.contains("waiting to start"), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn readiness_tells_what_is_broken_and_health_stays_open() {
    let world = world().await;
    assert_eq!(world.call("GET", "/readyz", None).await.status, StatusCode::OK);
    for resource in ["pods", "services"] {
        world.api.fail("list", resource, Fault::Disconnect, usize::MAX);
        world.api.fail("watch", resource, Fault::Disconnect, usize::MAX);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let answer = world.call("GET", "/readyz", None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text.contains("connection refused"), "{}", answer.text);
    assert_eq!(world.call("GET", "/health", None).await.json(), json!({ "status": "ok" }));
    let metrics = world.call("GET", "/metrics", None).await.text;
    assert!(metrics.contains("stockade_kubernetes_watch_restarts_total{resource=\"pods\"}"), "{metrics}");
    assert_eq!(world.call("GET", "/api/sandboxes", None).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
