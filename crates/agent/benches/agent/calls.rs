//! `exec` of `true`, beside a bash that runs it without us, and writes of small files, beside a program that writes them.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Agent, Client};
use crate::rows::{Row, Rows, Times};

const CALLS: usize = 300;
/// The design's bound for a small write, in milliseconds.
const WRITE: f64 = 0.3;

pub(crate) fn measure(agent: &Agent, rows: &mut Rows) {
    let bare: Vec<_> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            assert!(Command::new("bash").args(["-c", "true"]).status().unwrap().success());
            began.elapsed()
        })
        .collect();
    let floor = Times::of(&bare).quantile(0.5);
    let mut client = agent.client();
    let id = client.post("/v1/shell/sessions/create", &json!({})).data()["session_id"].clone();
    let known = json!({ "id": id, "command": "true" });
    let new = json!({ "command": "true" });
    for (what, route, body, floor) in [
        ("exec true, shell session", "/v1/shell/exec", &known, None),
        ("exec true, new shell session each", "/v1/shell/exec", &new, Some(floor)),
        ("exec true, bash", "/v1/bash/exec", &new, Some(floor)),
    ] {
        let times: Vec<_> = (0..CALLS).map(|_| timed(&mut client, route, body)).collect();
        rows.add(&Row { floor, ..Row::times(what, &times).budget(5.0) });
    }
}

/// Writes of 4 KB: over a file, which a new one replaces, of a file that was not there, and to the end of one.
pub(crate) fn measure_writes(agent: &Agent, rows: &mut Rows) {
    let directory = agent.home.path().join("written");
    std::fs::create_dir(&directory).unwrap();
    let content = "x".repeat(4096);
    let bare: Vec<_> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            std::fs::write(directory.join("bare"), &content).unwrap();
            began.elapsed()
        })
        .collect();
    let floor = Times::of(&bare).quantile(0.5);
    let mut client = agent.client();
    let mut write = |name: &str, append: bool| {
        let body = json!({ "file": directory.join(name), "content": content, "append": append });
        let began = Instant::now();
        assert_eq!(client.post("/v1/file/write", &body).data()["bytes_written"], content.len());
        began.elapsed()
    };
    let over: Vec<_> = (0..CALLS).map(|_| write("over", false)).collect();
    let new: Vec<_> = (0..CALLS).map(|number| write(&format!("new-{number}"), false)).collect();
    let appended: Vec<_> = (0..CALLS).map(|_| write("appended", true)).collect();
    for (what, times) in [
        ("write of 4 KB over a file", over),
        ("write of a new file of 4 KB", new),
        ("append of 4 KB", appended),
    ] {
        rows.add(&Row::times(what, &times).floor(floor).budget(WRITE));
    }
}

fn timed(client: &mut Client, route: &str, body: &Value) -> Duration {
    let began = Instant::now();
    let answer = client.post(route, body);
    assert_eq!(answer.data()["exit_code"], 0);
    began.elapsed()
}
