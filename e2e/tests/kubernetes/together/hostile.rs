//! Input that nobody should send.

use std::time::Duration;

use serde_json::json;
use stockade_e2e::http;
use stockade_e2e::server::Server;
use stockade_e2e::world::scenario;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes on a connection, and all that comes back until the server closes it.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server keeps a hopeless connection open");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn post(server: &Server, content_type: &str, body: Vec<u8>) -> http::Answer {
    let request = server.request("POST", "/api/sandboxes").header("content-type", content_type).body(body);
    http::send(request.unwrap()).await.expect("an answer")
}

async fn method(server: &Server, method: &str, path: &str) -> http::Answer {
    http::send(server.request(method, path).body(Vec::new()).unwrap()).await.expect("an answer")
}

#[test]
fn every_bad_field_is_a_422_that_names_it() {
    scenario(async |world| {
        let server = world.server().await;
        for (body, field) in [
            (json!({}), "sandbox_id"),
            (json!({"sandbox_id": "UPPER"}), "sandbox_id"),
            (json!({"sandbox_id": "a".repeat(52)}), "sandbox_id"),
            (json!({"sandbox_id": "-a"}), "sandbox_id"),
            (json!({"sandbox_id": "a\nb"}), "sandbox_id"),
            (json!({"sandbox_id": 7}), "sandbox_id"),
            (json!({"sandbox_id": "x", "thread_id": "../up"}), "thread_id"),
            (json!({"sandbox_id": "x", "user_id": "a/b"}), "user_id"),
            (json!({"sandbox_id": "x", "user_id": "u".repeat(256)}), "user_id"),
            (json!({"sandbox_id": "x", "extra_mounts": "all"}), "extra_mounts"),
            (
                json!({"sandbox_id": "x", "extra_mounts": vec![json!({"host_path": "/a"}); 11]}),
                "extra_mounts",
            ),
            (json!({"sandbox_id": "x", "image": "evil"}), "image"),
        ] {
            let answer = server.post("/api/sandboxes", &body).await;
            assert_eq!(answer.status, 422, "{body}: {}", answer.text());
            let named = answer.json()["detail"][0]["loc"].to_string();
            assert!(named.contains(field), "{body}: {named}");
        }
        assert_eq!(world.cluster.count().await, (0, 0));
    });
}

#[test]
fn bodies_that_are_not_a_request_are_refused_and_never_a_500() {
    scenario(async |world| {
        let server = world.server().await;
        let json = "application/json";
        for body in ["", "{", "null", "[]", "\"x\"", "{\"sandbox_id\": \"x\"} trailing", "\u{0}"] {
            assert_eq!(post(&server, json, body.as_bytes().to_vec()).await.status, 422, "{body:?}");
        }
        assert_eq!(post(&server, json, vec![0xff, 0xfe]).await.status, 422);
        let nested = "[".repeat(100_000).into_bytes();
        assert_eq!(post(&server, json, nested).await.status, 422);
        assert_eq!(post(&server, json, vec![b' '; 1024 * 1024 + 1]).await.status, 413);
        assert_eq!(post(&server, "text/plain", b"{}".to_vec()).await.status, 415);
        let chunked =
            "POST /api/sandboxes HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
        let answer = raw(&server, chunked.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    });
}

#[test]
fn unknown_paths_and_methods_are_answered_in_json() {
    scenario(async |world| {
        let server = world.server().await;
        for (verb, path, status) in [
            ("GET", "/nothing", 404),
            ("GET", "/api/nothing", 404),
            ("PUT", "/api/sandboxes", 405),
            ("DELETE", "/api/sandboxes", 405),
            ("POST", "/api/sandboxes/x/renew", 501),
        ] {
            let answer = method(&server, verb, path).await;
            assert_eq!(answer.status, status, "{verb} {path}: {}", answer.text());
            assert!(answer.json()["detail"].is_string(), "{verb} {path}: {}", answer.text());
        }
        for id in ["UPPER", "a%2Fb", "..%2F..", "%0A", "%00", "a%20b", &"a".repeat(300)] {
            let path = format!("/api/sandboxes/{id}");
            assert_eq!(method(&server, "GET", &path).await.status, 404, "{id}");
            assert_eq!(method(&server, "DELETE", &path).await.status, 200, "{id}");
            let truth = method(&server, "GET", &format!("/api/reconciliation/sandboxes/{id}")).await;
            assert_eq!(truth.json()["status"], "absent", "{id}");
        }
    });
}

#[test]
fn what_a_caller_sends_cannot_write_a_log_line() {
    scenario(async |world| {
        let server = world.server().await;
        let forged = "%0A%7B%22message%22:%22forged-line%22%7D%0A%1B%5B31m";
        method(&server, "GET", &format!("/api/sandboxes/{forged}")).await;
        method(&server, "DELETE", &format!("/api/sandboxes/{forged}")).await;
        server
            .post("/api/sandboxes", &json!({"sandbox_id": "x\n{\"message\":\"forged-line\"}\n\u{1b}[31m"}))
            .await;
        let request =
            server.request("GET", "/api/sandboxes/x").header("x-request-id", "a\u{1b}[31mforged-line");
        if let Ok(request) = request.body(Vec::new()) {
            http::send(request).await.expect("an answer");
        }
        let log = server.log_text();
        for line in log.lines() {
            // Lines that are not JSON fail every test at its end.
            let message = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
            assert_ne!(message["message"], "forged-line", "{line}");
        }
        assert!(!log.contains('\u{1b}'), "a control character is in the log");
    });
}

#[test]
fn web_pages_cannot_call() {
    scenario(async |world| {
        let server = world.server().await;
        let foreign = server.request("GET", "/api/sandboxes").header("origin", "http://evil.example");
        assert_eq!(http::send(foreign.body(Vec::new()).unwrap()).await.unwrap().status, 403);
        for (path, mode, status) in [
            ("/api/sandboxes", "no-cors", 403),
            ("/api/sandboxes", "navigate", 403),
            ("/docs", "navigate", 200),
        ] {
            let foreign = server.request("GET", path).header("sec-fetch-site", "cross-site");
            let foreign = foreign.header("sec-fetch-mode", mode).header("sec-fetch-dest", "document");
            let answer = http::send(foreign.body(Vec::new()).unwrap()).await.unwrap();
            assert_eq!(answer.status, status, "{path} {mode}");
        }
        let rebound = server.request("GET", "/api/sandboxes").header("host", "evil.example:8002");
        assert_eq!(http::send(rebound.body(Vec::new()).unwrap()).await.unwrap().status, 421);
    });
}

/// More than the server takes, from somebody who only wants to be in the way.
#[test]
fn idle_connections_lock_nobody_out() {
    const IDLE: usize = 2_200;
    scenario(async |world| {
        let server = world.server().await;
        let address = server.url.trim_start_matches("http://").to_owned();
        let mut limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limits.current = limits.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).unwrap();
        let mut idle = Vec::new();
        for number in 0..IDLE {
            let mut stream = TcpStream::connect(&address).await.expect("a connection");
            if number % 2 == 0 {
                // The server may have hung up already.
                let _ = stream.write_all(b"GET /api/sandboxes HTTP/1.1\r\nhost: local").await;
            }
            idle.push(stream);
        }
        assert_eq!(server.get("/api/sandboxes").await.status, 200);
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(20), idle[0].read(&mut byte)).await;
        assert!(ended.is_ok(), "the oldest connection is kept, and the newest came in");
    });
}

#[test]
fn connections_that_never_finish_a_request_are_closed_and_disturb_nobody() {
    scenario(async |world| {
        let server = world.server().await;
        let address = server.url.trim_start_matches("http://").to_owned();
        let mut idle = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(&address).await.expect("a connection");
            stream.write_all(b"GET /api/sandboxes HTTP/1.1\r\nhost: local").await.expect("a few bytes");
            idle.push(stream);
        }
        assert_eq!(server.get("/api/sandboxes").await.status, 200);
        let mut byte = [0];
        let closed = tokio::time::timeout(Duration::from_secs(60), idle[0].read(&mut byte)).await;
        assert!(closed.is_ok(), "a connection that sends half a request is kept for more than a minute");
        let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(1 << 20));
        let answer = raw(&server, long.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(
            raw(&server, b"\x16\x03\x01\x02\x00\x01\x00").await.split_whitespace().nth(1),
            Some("400")
        );
        assert_eq!(server.get("/health").await.status, 200);
    });
}
