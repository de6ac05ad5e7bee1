//! The contract, call by call, in front of a backend in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use stockade_core::{BackendError, ContractVersion};
use tower::ServiceExt;

use super::*;
use crate::auth::Access;
use crate::test_backend::{KEY, MemoryBackend, mk_router_with};

mod extensions;
mod waiting;

/// A server in front of a backend, called without a socket.
struct Server {
    backend: Arc<MemoryBackend>,
    router: Router,
}

/// An answer, read.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn mk_server() -> Server {
    mk_server_with(MemoryBackend::new(ContractVersion::V2), Access::key(&SecretString::from(KEY)))
}

fn mk_server_with(backend: Arc<MemoryBackend>, access: Access) -> Server {
    Server { router: mk_router_with(&backend, access), backend }
}

fn mk_request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:8002").header("x-api-key", KEY)
}

impl Server {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(mk_request(method, path).body(Body::empty()).unwrap()).await
    }

    async fn create(&self, body: impl Into<Body>) -> Answer {
        self.create_at("/api/sandboxes", body).await
    }

    async fn create_at(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = mk_request("POST", path).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }
}

#[tokio::test]
async fn a_sandbox_is_made_found_listed_and_ended() {
    let server = mk_server();
    let sandbox = json!({
        "sandbox_id": "s1", "sandbox_url": "http://node.internal:30000/s1", "status": "Pending",
        "user_id": "alice", "thread_id": "t1", "mount_contract_version": 2,
        "ready": false, "reason": "ContainerCreating", "message": "the image is being pulled",
        "created_at": "2026-11-01T02:03:04Z", "backend": "memory",
    });
    let made = server.create(r#"{"sandbox_id":"s1","user_id":"alice","thread_id":"t1"}"#).await;
    assert_eq!((made.status, made.json()), (200, sandbox.clone()));
    assert_eq!(made.header("content-type"), Some("application/json"));
    let found = server.call("GET", "/api/sandboxes/s1").await;
    assert_eq!((found.status, found.json()), (200, sandbox.clone()));
    let listed = server.call("GET", "/api/sandboxes").await;
    assert_eq!((listed.status, listed.json()), (200, json!({"sandboxes": [sandbox], "count": 1})));
    for _ in 0..2 {
        let ended = server.call("DELETE", "/api/sandboxes/s1").await;
        assert_eq!((ended.status, ended.json()), (200, json!({"ok": true, "sandbox_id": "s1"})));
    }
    let gone = server.call("GET", "/api/sandboxes/s1").await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json(), json!({"detail": "Sandbox 's1' not found", "code": "not_found"}));
}

#[tokio::test]
async fn contract_1_answers_like_its_generation() {
    let server = mk_server_with(MemoryBackend::new(ContractVersion::V1), Access::Open);
    let body = r#"{"sandbox_id":"s1","required_mount_contract_version":7}"#;
    let made = server.create(body).await;
    assert_eq!(made.status, 200);
    let capabilities = server.call("GET", "/api/capabilities").await;
    let reconciled = server.call("GET", "/api/reconciliation/sandboxes/s1").await;
    assert_eq!(reconciled.json()["status"], "found");
    for answer in [made, capabilities, reconciled, server.call("GET", "/api/sandboxes").await] {
        for key in ["user_id", "thread_id", "mount_contract_version"] {
            assert!(!answer.text.contains(key), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn capabilities_say_what_is_configured() {
    let answer = mk_server().call("GET", "/api/capabilities").await;
    let expect = r#"{"lark_cli_init_image":true,"lark_cli_broker_image":false,"mount_contract_version":2}"#;
    assert_eq!(answer.text, expect);
}

#[tokio::test]
async fn another_mount_contract_is_refused_before_the_backend_is_asked() {
    let server = mk_server();
    let answer = server.create(r#"{"sandbox_id":"s1","required_mount_contract_version":3}"#).await;
    assert_eq!(answer.status, 409);
    let detail = json!({"code": "mount_contract_changed", "expected": 3, "actual": 2});
    assert_eq!(answer.json()["detail"], detail);
    assert!(server.backend.take_calls().is_empty());
    let same = server.create(r#"{"sandbox_id":"s1","required_mount_contract_version":2}"#).await;
    assert_eq!(same.status, 200);
}

#[tokio::test]
async fn reconciliation_reads_through_and_names_the_namespace() {
    let server = mk_server();
    server.create(r#"{"sandbox_id":"s1"}"#).await;
    let found = server.call("GET", "/api/reconciliation/sandboxes/s1").await;
    assert_eq!(
        found.json(),
        json!({
            "sandbox_id": "s1", "status": "found", "backend_namespace": "namespace-1",
            "incarnation_id": "incarnation-1", "sandbox_url": "http://node.internal:30000/s1",
            "user_id": "default", "thread_id": "s1", "mount_contract_version": 2,
        })
    );
    for absent in ["s2", "Bad_Id", "a%0Ab"] {
        let answer = server.call("GET", &format!("/api/reconciliation/sandboxes/{absent}")).await;
        let json = answer.json();
        assert_eq!(
            (answer.status, &json["status"], &json["backend_namespace"]),
            (200, &json!("absent"), &json!("namespace-1"))
        );
        for key in ["incarnation_id", "sandbox_url", "user_id", "thread_id", "mount_contract_version"] {
            assert_eq!(json.get(key), Some(&Value::Null), "{key}");
        }
    }
}

#[tokio::test]
async fn every_api_path_wants_the_key() {
    let paths = [
        ("GET", "/api/capabilities"),
        ("POST", "/api/sandboxes"),
        ("GET", "/api/sandboxes"),
        ("GET", "/api/sandboxes/s1"),
        ("DELETE", "/api/sandboxes/s1"),
        ("PUT", "/api/sandboxes/s1"),
        ("GET", "/api/sandboxes/s1/events"),
        ("GET", "/api/sandboxes/s1/logs"),
        ("GET", "/api/reconciliation/sandboxes/s1"),
        ("GET", "/api/events"),
        ("GET", "/api/no-such-path"),
        ("GET", "/api/"),
        ("GET", "/api"),
    ];
    let nobody = mk_server_with(MemoryBackend::new(ContractVersion::V2), Access::Nobody);
    for (server, key) in [(mk_server(), None), (mk_server(), Some("wrong")), (nobody, Some(KEY))] {
        for (method, path) in paths {
            let mut request = mk_request(method, path).body(Body::empty()).unwrap();
            request.headers_mut().remove("x-api-key");
            if let Some(key) = key {
                request.headers_mut().insert("x-api-key", key.parse().unwrap());
            }
            let answer = server.send(request).await;
            assert_eq!((answer.status, answer.text.as_str()), (401, "Unauthorized"), "{method} {path}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        assert!(server.backend.take_calls().is_empty());
        assert_eq!(server.call("GET", "/health").await.status, 200);
    }
}

#[tokio::test]
async fn health_is_open_and_ok_whatever_the_backend_says() {
    let server = mk_server_with(MemoryBackend::new(ContractVersion::V2), Access::Nobody);
    server.backend.fail(|| BackendError::Unreachable { message: "no answer".into(), source: None });
    let request = Request::get("/health").header("host", "balancer.example.com").body(Body::empty()).unwrap();
    let answer = server.send(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(server.call("GET", "/healthz").await.status, 200);
    let ready = server.call("GET", "/readyz").await;
    assert_eq!((ready.status, &ready.json()["parts"]["memory"]), (503, &json!("no answer")));
}

#[tokio::test]
async fn readiness_names_every_part() {
    let answer = mk_server().call("GET", "/readyz").await;
    assert_eq!(answer.status, 200);
    let expect = json!({"ready": true, "backend": "memory", "parts": {"memory": null}, "sandboxes": 0, "proven_age_seconds": 1.5});
    assert_eq!(answer.json(), expect);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let server = mk_server();
    for path in [
        "/",
        "/nothing",
        "/api/nothing",
        "/api/sandboxes/s1/nothing",
        "/api/sandboxes/a/b/c",
        "/%61pi/sandboxes",
    ] {
        let answer = server.call("GET", path).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_such_path")), "{path}");
    }
    let answer = server.call("PUT", "/api/sandboxes").await;
    assert_eq!((answer.status, &answer.json()["code"]), (405, &json!("method_not_allowed")));
    let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    assert_eq!(server.call("BREW", "/health").await.status, 405);
}

#[tokio::test]
async fn what_is_not_built_is_said_by_name() {
    let server = mk_server();
    for (method, path) in [
        ("PATCH", "/api/sandboxes/s1"),
        ("POST", "/api/sandboxes/s1/renew"),
        ("GET", "/api/events"),
        ("GET", "/ui"),
    ] {
        let answer = server.call(method, path).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (501, &json!("not_implemented")),
            "{method} {path}"
        );
    }
    let answer = server.create(r#"{"sandbox_id":"s1","ttl_seconds":60}"#).await;
    assert_eq!((answer.status, &answer.json()["detail"][0]["loc"]), (422, &json!(["body", "ttl_seconds"])));
}

#[tokio::test]
async fn a_body_is_json_of_at_most_a_mebibyte() {
    let server = mk_server();
    let huge = vec![b' '; 1024 * 1024 + 1];
    let streamed = Body::from_stream(futures::stream::iter(
        huge.chunks(4096).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>(),
    ));
    for body in [Body::from(huge), streamed] {
        let answer = server.create(body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (413, &json!("body_too_large")));
    }
    let mut announced = mk_request("POST", "/api/sandboxes").header("content-type", "application/json");
    announced = announced.header("content-length", "99999999999");
    assert_eq!(server.send(announced.body(Body::empty()).unwrap()).await.status, 413);
    for malformed in ["{", "", "[]", "null", "\"x\"", "{\"sandbox_id\":\"\\ud800\"}"] {
        let answer = server.create(malformed).await;
        assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("invalid_request")), "{malformed}");
    }
    let form = mk_request("POST", "/api/sandboxes").header("content-type", "text/plain");
    let answer = server.send(form.body(Body::from(r#"{"sandbox_id":"s1"}"#)).unwrap()).await;
    assert_eq!((answer.status, &answer.json()["code"]), (415, &json!("not_json")));
    assert!(server.backend.take_calls().is_empty());
}

#[tokio::test]
async fn ids_that_are_none_never_reach_the_backend() {
    let server = mk_server();
    for bad in ["Bad", "a%0Ab", "%ff", "a%2Fb", "-a", "%00", &"x".repeat(5000)] {
        let path = format!("/api/sandboxes/{bad}");
        let got = server.call("GET", &path).await;
        assert_eq!((got.status, &got.json()["code"]), (404, &json!("not_found")), "{bad}");
        let deleted = server.call("DELETE", &path).await;
        assert_eq!((deleted.status, &deleted.json()["ok"]), (200, &json!(true)), "{bad}");
        assert!(deleted.text.len() < 1024);
        for below in ["events", "logs"] {
            assert_eq!(server.call("GET", &format!("{path}/{below}")).await.status, 404, "{bad}");
        }
    }
    assert!(server.backend.take_calls().is_empty());
    assert_eq!(server.call("DELETE", "/api/sandboxes/a%0Ab").await.json()["sandbox_id"], "a\nb");
}

#[tokio::test]
async fn web_pages_of_others_are_refused() {
    let server = mk_server_with(MemoryBackend::new(ContractVersion::V2), Access::Open);
    let mut rebound = mk_request("GET", "/api/sandboxes").body(Body::empty()).unwrap();
    rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
    let answer = server.send(rebound).await;
    assert_eq!(answer.status, 421);
    assert!(answer.json()["detail"].as_str().unwrap().contains("STOCKADE_ALLOWED_HOSTS"));
    let foreign = mk_request("DELETE", "/api/sandboxes/s1").header("origin", "https://evil.example");
    let answer = server.send(foreign.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("foreign_origin")));
    assert!(server.backend.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_an_answer_that_says_why() {
    let server = mk_server();
    let started = tokio::time::Instant::now();
    let made = server.create_at("/api/sandboxes?wait=ready&timeout=3", r#"{"sandbox_id":"s1"}"#).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!(
        (made.status, &made.json()["ready"], &made.json()["reason"]),
        (200, &json!(false), &json!("ContainerCreating"))
    );
    let started = tokio::time::Instant::now();
    let found = server.call("GET", "/api/sandboxes/s1?wait=ready").await;
    assert_eq!((started.elapsed().as_secs(), found.status), (25, 200));
    server.backend.change("s1", |sandbox| sandbox.ready = true);
    server.backend.take_calls();
    assert_eq!(server.call("GET", "/api/sandboxes/s1?wait=ready").await.json()["ready"], true);
    assert_eq!(server.backend.take_calls(), ["get s1"]);
    for bad in ["wait=running", "wait=ready&timeout=0", "wait=ready&timeout=26", "timeout=x"] {
        let answer = server.call("GET", &format!("/api/sandboxes/s1?{bad}")).await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["loc"][0]), (422, &json!("query")), "{bad}");
        let answer = server.create_at(&format!("/api/sandboxes?{bad}"), r#"{"sandbox_id":"s2"}"#).await;
        assert_eq!(answer.status, 422, "{bad}");
    }
}

#[tokio::test]
async fn errors_of_the_backend_reach_the_caller() {
    let server = mk_server();
    server.create(r#"{"sandbox_id":"s1"}"#).await;
    let other = server.create(r#"{"sandbox_id":"s1","user_id":"mallory"}"#).await;
    assert_eq!(other.status, 409);
    assert!(other.json()["detail"].as_str().unwrap().contains("another user"));
    server.backend.fail(|| BackendError::PartialCleanup { failures: "pod: gone, service: stuck".into() });
    let answer = server.call("DELETE", "/api/sandboxes/s1").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["detail"], "Partial cleanup: pod: gone, service: stuck");
    server.backend.fail(|| BackendError::Unreachable { message: "no answer".into(), source: None });
    for path in
        ["/api/sandboxes", "/api/sandboxes/s1", "/api/sandboxes/s1/events", "/api/reconciliation/sandboxes/A"]
    {
        let answer = server.call("GET", path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{path}");
    }
}

#[tokio::test]
async fn events_and_logs_can_be_read() {
    let server = mk_server();
    server.create(r#"{"sandbox_id":"s1"}"#).await;
    let events = server.call("GET", "/api/sandboxes/s1/events").await;
    let event = json!({"type": "Warning", "reason": "FailedMount", "message": "no such directory", "count": 3, "last_seen": null});
    assert_eq!(events.json(), json!({"events": [event]}));
    let logs = server.call("GET", "/api/sandboxes/s1/logs?follow=1&tail=7").await;
    assert_eq!(logs.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(logs.text, "LogOptions { follow: true, tail_lines: 7, previous: false }\nsecond\n");
    for below in ["events", "logs"] {
        assert_eq!(server.call("GET", &format!("/api/sandboxes/s2/{below}")).await.status, 404);
    }
    assert_eq!(server.call("GET", "/api/sandboxes/s1/logs?tail=1000000").await.status, 422);
}

#[tokio::test]
async fn a_panic_is_one_failed_request_and_says_nothing() {
    let server = mk_server();
    server.backend.panic(true);
    let calls = [("GET", "/api/sandboxes"), ("GET", "/api/sandboxes/s1"), ("DELETE", "/api/sandboxes/s1")];
    for (method, path) in calls {
        let answer = server.call(method, path).await;
        assert_eq!((answer.status, &answer.json()["code"]), (500, &json!("internal")), "{method} {path}");
        assert!(!answer.text.contains("told to panic"));
    }
    assert_eq!(server.create(r#"{"sandbox_id":"s1"}"#).await.status, 500);
    server.backend.panic(false);
    assert_eq!(server.create(r#"{"sandbox_id":"s1"}"#).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_takes_too_long_is_answered_and_still_ends() {
    let server = mk_server();
    server.backend.creates.forget_permits(usize::MAX);
    let started = tokio::time::Instant::now();
    let answer = server.create(r#"{"sandbox_id":"s1"}"#).await;
    assert_eq!((started.elapsed().as_secs(), answer.status), (28, 504));
    server.backend.creates.add_permits(1);
    server.backend.creates.acquire().await.unwrap().forget();
    assert_eq!(server.call("GET", "/api/sandboxes/s1").await.status, 200);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_half_sandbox() {
    let server = mk_server();
    server.backend.creates.forget_permits(usize::MAX);
    tokio::select! {
        biased;
        answer = server.create(r#"{"sandbox_id":"s1"}"#) => panic!("there was an answer: {answer:?}"),
        begun = server.backend.begun.acquire() => begun.unwrap().forget(),
    }
    // The caller is gone. The next one has its turn when the backend is done with the first.
    server.backend.creates.add_permits(1);
    server.backend.creates.acquire().await.unwrap().forget();
    assert_eq!(server.call("GET", "/api/sandboxes/s1").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn more_creates_than_there_is_room_for_are_told_to_come_back() {
    let server = Arc::new(mk_server());
    server.backend.creates.forget_permits(usize::MAX);
    let creates: Vec<_> = (0..769)
        .map(|number| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.create(format!(r#"{{"sandbox_id":"s{number}"}}"#)).await })
        })
        .collect();
    server.backend.begun.acquire_many(512).await.unwrap().forget();
    tokio::time::advance(Duration::from_secs(1)).await;
    server.backend.creates.add_permits(1000);
    let mut statuses = Vec::new();
    for create in creates {
        let answer = create.await.unwrap();
        if answer.status == 429 {
            assert_eq!(
                (answer.header("retry-after"), &answer.json()["code"]),
                (Some("2"), &json!("overloaded"))
            );
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 768);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1);
}

#[tokio::test]
async fn a_request_id_comes_back() {
    let server = mk_server();
    let request = mk_request("GET", "/health").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(server.send(request).await.header("x-request-id"), Some("abc-1"));
    let own = server.call("GET", "/health").await;
    assert_eq!(own.header("x-request-id").map(str::len), Some(32));
}

#[tokio::test]
async fn metrics_have_bounded_labels() {
    let server = mk_server();
    server.create(r#"{"sandbox_id":"s1"}"#).await;
    for number in 0..5 {
        server.call("GET", &format!("/nothing/{number}")).await;
        server.call(&format!("BREW{number}"), &format!("/api/sandboxes/x{number}")).await;
    }
    let text = server.call("GET", "/metrics").await.text;
    for line in [
        r#"stockade_http_requests_total{method="GET",route="unmatched",status="4xx"} 5"#,
        r#"stockade_http_requests_total{method="OTHER",route="/api/sandboxes/{id}",status="4xx"} 5"#,
        r#"stockade_http_requests_total{method="POST",route="/api/sandboxes",status="2xx"} 1"#,
        "stockade_sandboxes 1.0",
        "stockade_backend_ready 1.0",
        "stockade_backend_proven_age_seconds 1.5",
        "stockade_http_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn the_description_and_its_page_come_from_here_alone() {
    let server = mk_server();
    let description = server.call("GET", "/openapi.json").await;
    assert_eq!(description.json()["info"]["title"], "Stockade");
    let page = server.call("GET", "/docs").await;
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for file in ["/docs/page.js", "/docs/page.css"] {
        assert!(page.text.contains(file));
        assert_eq!(server.call("GET", file).await.status, 200);
    }
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
}
