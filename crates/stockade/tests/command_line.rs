//! The binary from outside: exit codes, and what goes where.

#![allow(clippy::unwrap_used)] // helpers of tests, which are in no module of their own

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

/// Runs the binary with nothing in its environment but this.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn wrong_settings_stop_the_start_and_are_all_named() {
    let environment =
        [("K8S_NAMESPACE", "Bad"), ("STOCKADE_LISTEN", "nowhere"), ("PROVISIONER_API_KEY", "a\tb")];
    let output = run(&["serve"], &environment);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for part in ["K8S_NAMESPACE is \"Bad\"", "STOCKADE_LISTEN is \"nowhere\"", "PROVISIONER_API_KEY is wrong"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("a\tb") && !said.contains("a\\tb"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_unknown_backend_is_an_error_and_never_another_one() {
    assert_eq!(run(&["serve", "--backend", "docker"], &[]).status.code(), Some(2));
    let output = run(&["serve"], &[("STOCKADE_BACKEND", "docker")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("must be kubernetes or embedded"));
}

#[test]
fn a_wrong_filter_is_named() {
    let output = run(&["serve", "--log-level", "info,=="], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--log-level"));
}

#[test]
fn doctor_names_each_wrong_setting_with_its_fix() {
    let output = run(&["doctor", "--json"], &[("NODE_HOST", "http://x")]);
    assert_eq!(output.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings[0]["name"], "NODE_HOST");
    assert_eq!(findings[0]["level"], "fail");
    assert!(findings[0]["fix"].as_str().unwrap().contains("host name"));
}

#[test]
fn health_says_by_its_exit_code_whether_a_server_lives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}").unwrap();
        assert_eq!(&head, b"GET /health ");
    });
    assert_eq!(run(&["health", "--url", &url], &[]).status.code(), Some(0));
    server.join().unwrap();
    // Now nobody listens there.
    let output = run(&["health", "--url", &url], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&url));
}

#[test]
fn the_version_is_the_workspace_s() {
    assert_eq!(text(&run(&["--version"], &[]).stdout), format!("stockade {}\n", env!("CARGO_PKG_VERSION")));
}
