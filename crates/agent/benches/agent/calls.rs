//! `exec` of `true`, beside a bash that runs it without us.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Agent, Client};
use crate::rows::{Row, Rows, Times};

const CALLS: usize = 300;

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

fn timed(client: &mut Client, route: &str, body: &Value) -> Duration {
    let began = Instant::now();
    let answer = client.post(route, body);
    assert_eq!(answer.data()["exit_code"], 0);
    began.elapsed()
}
