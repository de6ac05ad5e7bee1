//! Tokens and tickets against the running agent.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/token.rs"]
mod token;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Agent, Answer};
use serde_json::{Value, json};

const PEM: &str = include_str!("keys/public.pem");

fn agent() -> Agent {
    let mut program = Command::new(env!("CARGO_BIN_EXE_stockade-agent"));
    program.env("JWT_PUBLIC_KEY", PEM);
    Agent::start_with(program, &[])
}

fn bearer(lifetime: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    format!("authorization: Bearer {}\r\n", token::sign(&json!({ "exp": now + lifetime })))
}

fn ask(agent: &Agent, line: &str, headers: &str) -> Answer {
    let mut client = agent.client();
    client
        .raw(format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{headers}\r\n").as_bytes());
    client.answer()
}

#[test]
fn every_route_wants_a_token_but_the_probe() {
    let agent = agent();
    for line in [
        "POST /v1/shell/exec",
        "GET /v1/shell/ws",
        "GET /v1/file/download?path=/etc/passwd",
        "POST /mcp",
        "GET /proxy/1/",
        "POST /tickets",
        "GET /auth",
        "GET /v1/docs",
        "GET /no/such/route",
    ] {
        let answer = ask(&agent, line, "");
        assert_eq!(answer.status, 401, "{line}");
        assert_eq!(answer.json()["success"], false, "{line}");
        assert_eq!(ask(&agent, line, &bearer(-60)).status, 401, "{line}: expired");
        assert_ne!(ask(&agent, line, &bearer(60)).status, 401, "{line}");
    }
    let probe = ask(&agent, "GET /v1/sandbox", "").json();
    assert_eq!(probe["success"], true);
    assert_eq!(probe["detail"]["system"]["occupied_ports"], json!([]));
    for path in ["/v1/sandbox", "/terminal", "/static/sandbox/xterm@5.5.0/xterm.js"] {
        let line = format!("GET {path}");
        assert_eq!(ask(&agent, &line, "").status, 200, "{path}");
        // The same path of another program is not ours to give away.
        let other = ask(&agent, &line, "x-aio-proxy-port: 1\r\n");
        assert_eq!(other.status, 401, "{path} of another port");
    }
    let told = ask(&agent, "GET /v1/sandbox", &bearer(60)).json();
    assert_ne!(told["detail"]["system"]["occupied_ports"], json!([]));
}

#[test]
fn a_ticket_opens_one_call() {
    let agent = agent();
    let answer = ask(&agent, "POST /tickets", &bearer(60)).json();
    assert_eq!(answer["expires_in"], 30);
    let line = format!("GET /auth?ticket={}", answer["ticket"].as_str().unwrap());
    assert_eq!(ask(&agent, &line, "").json(), json!({ "status": "ok", "auth": "jwt" }));
    assert_eq!(ask(&agent, &line, "").status, 401);
}

#[test]
fn tools_work_behind_the_gate() {
    let agent = agent();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "shell_exec", "arguments": { "command": "echo in" } } });
    let body = call.to_string();
    let headers =
        format!("{}content-type: application/json\r\ncontent-length: {}\r\n", bearer(60), body.len());
    let mut client = agent.client();
    client.raw(format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}").as_bytes());
    assert_eq!(client.answer().json()["result"]["isError"], Value::Bool(false));
}

#[test]
fn what_listens_in_the_sandbox_never_sees_the_token() {
    let agent = agent();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = agent.client();
    client.raw(
        format!("GET /proxy/{port}/ HTTP/1.1\r\nhost: localhost\r\nx-mine: 1\r\n{}\r\n", bearer(60))
            .as_bytes(),
    );
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    let mut seen = String::new();
    while !seen.contains("\r\n\r\n") {
        let mut chunk = [0; 1024];
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0);
        seen.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    assert!(seen.contains("x-mine") && !seen.to_ascii_lowercase().contains("authorization"), "{seen}");
}
