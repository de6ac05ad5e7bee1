//! Answers as server-sent events: output as it comes, and last the JSON answer.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, Client, eventually};
use serde_json::{Value, json};

/// Everything told on `stream`, and the envelope at the end.
fn told(events: Vec<(String, Value)>, stream: &str) -> (String, Value) {
    let mut text = String::new();
    let mut result = Value::Null;
    for (name, data) in events {
        assert!(result.is_null(), "something came after the result: {name} {data}");
        match name.as_str() {
            "output" => text.push_str(data[stream].as_str().unwrap_or("")),
            "result" => result = data,
            other => panic!("event {other}"),
        }
    }
    (text, result)
}

fn named_session(client: &mut Client) -> Value {
    client.post("/v1/shell/sessions/create", &json!({ "id": "s" })).data()["session_id"].clone()
}

#[test]
fn output_comes_in_order_and_whole_and_the_result_is_the_json_answer() {
    let agent = Agent::start();
    let mut client = agent.client();
    let body =
        json!({ "command": "for i in $(seq 20000); do echo line $i; done; (exit 3)", "truncate": false });
    client.ask_for_events("/v1/shell/exec", &body);
    let (text, result) = told(client.events(), "output");
    let expect: String = (1..=20_000).map(|i| format!("line {i}\n")).collect();
    assert!(text == expect, "{} of {} bytes", text.len(), expect.len());
    let mut json = client.post("/v1/shell/exec", &body).json();
    json["data"]["session_id"] = result["data"]["session_id"].clone();
    assert!(json == result);

    client.ask_for_events("/v1/bash/exec", &json!({ "command": "seq 20000; echo problem >&2; exit 4" }));
    let events = client.events();
    assert_eq!(told(events.clone(), "stderr").0, "problem\n");
    let (text, result) = told(events, "stdout");
    assert!(text == (1..=20_000).map(|i| format!("{i}\n")).collect::<String>());
    assert_eq!((&result["data"]["exit_code"], &result["message"]), (&json!(4), &json!("Command executed")));
    assert!(result["data"]["stdout"].as_str().unwrap().contains("characters omitted"));
}

#[test]
fn output_is_told_while_the_command_runs() {
    let agent = Agent::start();
    for (path, stream) in [("/v1/shell/exec", "output"), ("/v1/bash/exec", "stdout")] {
        let gate = agent.home.path().join(stream);
        let command = format!("echo first; until [ -e {} ]; do sleep 0.01; done; echo last", gate.display());
        let (mut client, mut pending) = (agent.client(), String::new());
        client.ask_for_events(path, &json!({ "command": command }));
        let (name, data) = client.event(&mut pending).unwrap();
        assert_eq!((name.as_str(), &data[stream]), ("output", &json!("first\n")));
        std::fs::write(gate, "").unwrap();
        assert_eq!(client.event(&mut pending).unwrap().1[stream], "last\n");
        assert_eq!(client.event(&mut pending).unwrap().1["data"]["status"], "completed");
        assert_eq!(client.event(&mut pending), None);
        assert_eq!(client.get("/v1/openapi.json").status, 200, "the connection serves on");
    }
}

#[test]
fn characters_written_in_parts_come_whole() {
    let agent = Agent::start();
    let parts = r"for part in '\342' '\202' '\254' '\360\237' '\230\200\n'; do printf $part; sleep 0.1; done";
    for (path, stream) in [("/v1/shell/exec", "output"), ("/v1/bash/exec", "stdout")] {
        let mut client = agent.client();
        client.ask_for_events(path, &json!({ "command": parts }));
        let events = client.events();
        for (_, data) in &events {
            assert!(!data.to_string().contains('\u{fffd}'), "{data}");
        }
        assert_eq!(told(events, stream).0, "\u{20ac}\u{1f600}\n");
    }
}

#[test]
fn time_outs_end_the_answer_as_they_do_in_json() {
    let agent = Agent::start();
    let mut client = agent.client();
    for (path, limit, status) in [
        ("/v1/shell/exec", "hard_timeout", "hard_timeout"),
        ("/v1/shell/exec", "timeout", "running"),
        ("/v1/shell/exec", "no_change_timeout", "no_change_timeout"),
        ("/v1/bash/exec", "hard_timeout", "timed_out"),
        ("/v1/bash/exec", "timeout", "running"),
    ] {
        let began = Instant::now();
        client.ask_for_events(path, &json!({ "command": "echo before; sleep 20", limit: 0.5 }));
        let stream = if path.contains("shell") { "output" } else { "stdout" };
        let (text, result) = told(client.events(), stream);
        assert!(text.starts_with("before\n"), "{path} {limit}: {text}");
        assert_eq!(
            (&json!(text), &json!(status)),
            (&result["data"][stream], &result["data"]["status"]),
            "{path} {limit}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    client.ask_for_events("/v1/shell/exec", &json!({ "command": "sleep 20", "async_mode": true }));
    assert_eq!(told(client.events(), "output").1["message"], "Command started");
}

#[test]
fn a_view_follows_the_command_in_progress() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = named_session(&mut client);
    client.ask_for_events("/v1/shell/view", &json!({ "id": id }));
    assert_eq!(told(client.events(), "output").1["data"]["console"], json!([]));
    let command = "echo one; sleep 0.5; echo two";
    client.post("/v1/shell/exec", &json!({ "id": id, "command": command, "async_mode": true }));
    client.ask_for_events("/v1/shell/view", &json!({ "id": id }));
    let (text, result) = told(client.events(), "output");
    assert_eq!((text.as_str(), &result["data"]["status"]), ("one\ntwo\n", &json!("completed")));
    assert_eq!(result, client.post("/v1/shell/view", &json!({ "id": id })).json());
}

#[test]
fn a_job_that_prints_on_does_not_keep_the_answer_open() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = named_session(&mut client);
    client.ask_for_events("/v1/shell/exec", &json!({ "id": id, "command": "yes & echo started" }));
    assert_eq!(told(client.events(), "output").1["data"]["status"], "completed");
    client.ask_for_events("/v1/bash/exec", &json!({ "command": "yes & echo started" }));
    assert_eq!(told(client.events(), "stdout").1["data"]["status"], "completed");
}

#[test]
fn a_reader_that_stops_or_hangs_up_does_not_hold_the_command() {
    let agent = Agent::start();
    let mut client = agent.client();
    let id = named_session(&mut client);
    for (path, gone) in [
        ("/v1/shell/exec", false),
        ("/v1/shell/exec", true),
        ("/v1/bash/exec", false),
        ("/v1/bash/exec", true),
    ] {
        let done = agent.home.path().join("done");
        let command = format!("yes | head -c 40000000; echo x > {}", done.display());
        let mut body = json!({ "command": command });
        if path.contains("shell") {
            body["id"] = id.clone();
        }
        let mut reader = agent.client();
        reader.ask_for_events(path, &body);
        reader.event(&mut String::new());
        if gone {
            drop(reader);
            eventually("the command has run to its end", || done.exists());
        } else {
            eventually("the command has run to its end", || done.exists());
            let (text, result) =
                told(reader.events(), if path.contains("shell") { "output" } else { "stdout" });
            assert!(text.contains("bytes omitted"), "{} bytes", text.len());
            assert_eq!(result["data"]["exit_code"], 0);
        }
        std::fs::remove_file(done).unwrap();
        let next = client.post("/v1/shell/exec", &json!({ "id": id, "command": "echo next", "timeout": 10 }));
        assert_eq!(next.data()["output"], "next\n", "the session's turn was given back");
    }
    assert!(agent.resident() < 100 * 1024, "{} KiB", agent.resident());
}

#[test]
fn what_cannot_be_done_is_an_error_and_no_stream() {
    let agent = Agent::start();
    let mut client = agent.client();
    let body = r#"{"id":"none","command":"true"}"#;
    client.raw(format!("POST /v1/shell/exec HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["success"].clone()), (404, json!(false)));
}
