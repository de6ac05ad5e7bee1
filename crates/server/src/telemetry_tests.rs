use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Once};

use axum::body::Body;
use serde_json::{Value, json};
use stockade_core::{BackendError, ContractVersion};
use tower::ServiceExt;

use super::*;
use crate::test_backend::{KEY, MemoryBackend, mk_router};

#[test]
fn a_good_request_id_is_kept_and_another_replaced() {
    let check = |given: &str, is_kept: bool| {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given.as_bytes()).unwrap());
        assert_eq!(request_id(&headers) == given, is_kept, "{given:?}");
    };
    check("a-B_9", true);
    check(&"x".repeat(64), true);
    check(&"x".repeat(65), false);
    check("", false);
    check("a b", false);
    check("é", false);
}

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of the test that runs on this thread.
///
/// One subscriber serves all tests: with one for each thread, whether an event is of interest to any is
/// decided once, by whichever thread meets it first.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| Log);
        tracing::subscriber::set_global_default(lines.finish()).unwrap();
    });
}

fn lines() -> Vec<Value> {
    let text = String::from_utf8(LINES.with_borrow(Vec::clone)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn call(backend: &Arc<MemoryBackend>, method: &str, path: &str, body: &'static str) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .header("content-type", "application/json")
        .header("x-request-id", "r1");
    mk_router(backend).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
}

#[tokio::test]
async fn each_request_is_one_line_that_says_what_became_of_it() {
    start_log();
    let backend = MemoryBackend::new(ContractVersion::V2);
    call(&backend, "POST", "/api/sandboxes", r#"{"sandbox_id":"s1","user_id":"alice"}"#).await;
    call(&backend, "POST", "/api/sandboxes", r#"{"sandbox_id":"s1"}"#).await;
    call(&backend, "GET", "/api/sandboxes/s2", "").await;
    call(&backend, "GET", "/health", "").await;
    backend.fail(|| BackendError::Unreachable {
        message: "no answer".into(),
        source: Some("connection refused".into()),
    });
    call(&backend, "DELETE", "/api/sandboxes/s1", "").await;
    let lines = lines();
    let said = |line: &Value| {
        assert_eq!(line["request_id"], "r1");
        assert!(line["milliseconds"].as_f64().unwrap() > 0.0);
        ["level", "method", "route", "sandbox_id", "status", "outcome"].map(|name| line[name].clone())
    };
    assert_eq!(lines.len(), 4, "probes are not logged: {lines:?}");
    let create = "/api/sandboxes";
    let one = "/api/sandboxes/{id}";
    assert_eq!(json!(said(&lines[0])), json!(["INFO", "POST", create, "s1", 200, "ok"]));
    assert_eq!(json!(said(&lines[1])), json!(["INFO", "POST", create, "s1", 409, "other_user"]));
    assert_eq!(json!(said(&lines[2])), json!(["INFO", "GET", one, "s2", 404, "not_found"]));
    assert_eq!(json!(said(&lines[3])), json!(["ERROR", "DELETE", one, "s1", 503, "backend_unreachable"]));
    assert_eq!(lines[3]["cause"], "\"no answer: connection refused\"");
}

#[tokio::test]
async fn a_limit_that_holds_is_no_error_of_ours() {
    start_log();
    let backend = MemoryBackend::new(ContractVersion::V2);
    backend.fail(|| BackendError::QuotaExceeded { message: "there are 2 sandboxes already".into() });
    call(&backend, "POST", "/api/sandboxes", r#"{"sandbox_id":"s1"}"#).await;
    let lines = lines();
    assert_eq!((&lines[0]["level"], &lines[0]["outcome"]), (&json!("WARN"), &json!("quota_exceeded")));
    assert_eq!(lines[0]["cause"], "\"there are 2 sandboxes already\"");
}

#[tokio::test]
async fn nothing_a_caller_invents_reaches_the_log() {
    start_log();
    let backend = MemoryBackend::new(ContractVersion::V2);
    call(&backend, "GET", "/api/sandboxes/evil%0Aline", "").await;
    call(&backend, "DELETE", "/api/sandboxes/evil%1b%5b31m", "").await;
    call(&backend, "GET", "/evil/path?evil=1", "").await;
    call(&backend, "EVIL", "/api/sandboxes", "").await;
    call(&backend, "POST", "/api/sandboxes", r#"{"sandbox_id":"evil\nline","user_id":"evil user"}"#).await;
    let lines = lines();
    assert_eq!(lines.len(), 5);
    for line in lines {
        let text = line.to_string();
        assert!(!text.to_lowercase().contains("evil"), "{text}");
        assert!(!text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn a_panic_is_in_the_log_with_its_text() {
    start_log();
    let backend = MemoryBackend::new(ContractVersion::V2);
    backend.panic(true);
    call(&backend, "GET", "/api/sandboxes", "").await;
    let line = &lines()[0];
    assert_eq!((&line["status"], &line["outcome"]), (&json!(500), &json!("internal")));
    assert!(line["cause"].as_str().unwrap().contains("told to panic"), "{line}");
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_logged_too() {
    start_log();
    let backend = MemoryBackend::new(ContractVersion::V2);
    backend.creates.forget_permits(usize::MAX);
    let hung_up = call(&backend, "POST", "/api/sandboxes", r#"{"sandbox_id":"s1"}"#);
    tokio::select! {
        biased;
        () = hung_up => panic!("there was an answer"),
        begun = backend.begun.acquire() => begun.unwrap().forget(),
    }
    assert_eq!(lines()[0]["outcome"], "caller_hung_up");
}
