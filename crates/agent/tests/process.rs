//! What the SDK cannot see: leaks of processes and descriptors, orphans, the end of the agent, and
//! the health check under load.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Agent, eventually, is_alive};
use serde_json::{Value, json};

fn exec(client: &mut common::Client, session: &str, command: &str) -> Value {
    client.post("/v1/shell/exec", &json!({ "id": session, "command": command })).data()
}

fn session(client: &mut common::Client) -> String {
    let data = client.post("/v1/shell/sessions/create", &json!({})).data();
    data["session_id"].as_str().unwrap().to_owned()
}

#[test]
fn closed_sessions_leave_no_process_and_no_descriptor() {
    let agent = Agent::start();
    let mut client = agent.client();
    client.post("/v1/bash/exec", &json!({ "command": "true" }));
    let before = agent.descriptors();
    for _ in 0..10 {
        let id = session(&mut client);
        exec(&mut client, &id, "sleep 1000 & sleep 1000 | cat & echo x");
        client.delete(&format!("/v1/shell/sessions/{id}"));
        let started = client
            .post("/v1/bash/exec", &json!({ "command": "sleep 1000 & sleep 1000", "async_mode": true }))
            .data();
        client.post(
            &format!("/v1/bash/sessions/{}/close", started["session_id"].as_str().unwrap()),
            &json!({}),
        );
    }
    eventually("every child is gone", || agent.children().is_empty());
    eventually("every descriptor is closed", || agent.descriptors() <= before);
}

/// The agent's own descriptors then have the numbers that sessions are handed theirs under.
#[test]
fn sessions_work_whatever_numbers_descriptors_have() {
    let agent = Agent::start();
    let mut client = agent.client();
    for number in 0..48 {
        let id = session(&mut client);
        let body = json!({ "id": id, "command": "echo $((40 + 2))", "hard_timeout": 10 });
        assert_eq!(client.post("/v1/shell/exec", &body).data()["output"], "42\n", "session {number}");
    }
    assert!(agent.descriptors() > 220);
}

#[test]
fn orphans_are_reaped() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = session(&mut client);
    let output = exec(&mut client, &id, "for i in $(seq 20); do (setsid sleep 0.1 &) ; done; echo done");
    assert_eq!(output["output"], "done\n");
    client.delete(&format!("/v1/shell/sessions/{id}"));
    eventually("orphans were reaped", || agent.children().is_empty());
}

#[test]
fn sigterm_ends_everything_within_the_grace() {
    let mut agent = Agent::start();
    let mut client = agent.client();
    let id = session(&mut client);
    let pids = exec(
        &mut client,
        &id,
        "trap '' TERM HUP; (trap '' TERM HUP; exec sleep 1000) & nohup setsid sleep 1001 >/dev/null 2>&1 & jobs -p",
    );
    let pids: Vec<i32> =
        pids["output"].as_str().unwrap().lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{pids:?}");
    let began = Instant::now();
    agent.terminate();
    let status = agent.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10));
    for pid in pids {
        eventually("commands have ended", || !is_alive(pid));
    }
}

#[test]
fn a_pid_1_agent_reaps_and_ends() {
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Namespaces are not to be had here; the same is tested without them above.
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(env!("CARGO_BIN_EXE_stockade-agent"));
    let agent = Agent::start_with(unshare, &[]);
    let mut client = agent.client();
    let id = session(&mut client);
    assert_eq!(exec(&mut client, &id, "cut -d' ' -f4 /proc/$$/stat")["output"], "1\n");
    exec(&mut client, &id, "for i in $(seq 50); do (setsid sh -c 'exit 3' &); done");
    let zombies = "for i in $(seq 100); do grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | grep -q . || break; sleep 0.05; done; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    assert_eq!(exec(&mut client, &id, zombies)["output"], "0\n");
}

#[test]
fn a_command_is_nicer_and_dies_before_the_agent() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = session(&mut client);
    let output = exec(&mut client, &id, "cat /proc/self/oom_score_adj; nice");
    assert_eq!(output["output"], "500\n10\n");
    let output =
        client.post("/v1/bash/exec", &json!({ "command": "cat /proc/self/oom_score_adj; nice" })).data();
    assert_eq!(output["stdout"], "500\n10\n");
}

#[test]
fn children_inherit_no_descriptor_of_the_agent() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = session(&mut client);
    let output = exec(&mut client, &id, "ls /proc/self/fd | tr '\\n' ' '");
    assert_eq!(output["output"], "0 1 2 3 ", "3 is the directory that ls reads");
    let output =
        client.post("/v1/bash/exec", &json!({ "command": "ls /proc/self/fd | tr '\\n' ' '" })).data();
    assert_eq!(output["stdout"], "0 1 2 3 ");
}

#[test]
fn health_is_answered_while_everything_else_is_busy() {
    let agent = Agent::start();
    let mut client = agent.client();
    let mut busy: Vec<_> = (0..16).map(|_| agent.client()).collect();
    for (number, client) in busy.iter_mut().enumerate() {
        client.send(
            "/v1/shell/exec",
            &json!({ "command": "yes | head -c 200000000", "hard_timeout": 3 + number % 2 }),
        );
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(agent.client().get("/v1/sandbox").status, 200);
        slowest = slowest.max(began.elapsed());
    }
    // The figure is the benchmark's; here only that nothing waits for the load to pass.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for client in &mut busy {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(client.get("/v1/sandbox").status, 200);
}

#[test]
fn memory_stays_bounded_while_commands_print_gigabytes() {
    let agent = Agent::start();
    let mut clients: Vec<_> = (0..8).map(|_| agent.client()).collect();
    for client in &mut clients {
        client.send(
            "/v1/bash/exec",
            &json!({ "command": "head -c 100000000 /dev/zero; head -c 50000000 /dev/zero >&2" }),
        );
    }
    for client in &mut clients {
        assert_eq!(client.answer().data()["exit_code"], 0);
    }
    assert!(agent.resident() < 220 * 1024, "{} KiB", agent.resident());
}

#[test]
fn broken_requests_close_the_connection_and_nothing_else() {
    let agent = Agent::start();
    for garbage in [
        b"\0\0\0\0\r\n\r\n".as_slice(),
        b"GET /v1/sandbox\r\n\r\n",
        b"POST /v1/shell/exec HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/shell/exec HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/sandbox HTTP/9.9\r\n\r\n",
    ] {
        agent.client().raw(garbage);
    }
    assert_eq!(agent.client().get("/v1/sandbox").status, 200);
}
