//! Many at once: nothing is lost, and the probe is answered.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::Agent;
use crate::rows::{Row, Rows};

const SESSIONS: usize = 20;
const TURNS: usize = 50;
const STREAMING: usize = 64;
/// Seconds that each of those streams.
const STREAM: u64 = 6;

pub(crate) fn measure(agent: &Agent, rows: &mut Rows) {
    parallel_sessions(agent, rows);
    health_under_load(agent, rows);
}

fn parallel_sessions(agent: &Agent, rows: &mut Rows) {
    let began = Instant::now();
    let threads: Vec<_> = (0..SESSIONS)
        .map(|session| {
            let mut client = agent.client();
            std::thread::spawn(move || {
                let id = client.post("/v1/shell/sessions/create", &json!({})).data()["session_id"].clone();
                let turn = |turn| {
                    let command = format!("for i in 1 2 3 4 5; do echo {session}-{turn}-$i; done");
                    let answer = client.post("/v1/shell/exec", &json!({ "id": id, "command": command }));
                    let expect: String = (1..=5).map(|i| format!("{session}-{turn}-{i}\n")).collect();
                    answer.data()["output"] != expect
                };
                (0..TURNS).map(turn).filter(|wrong| *wrong).count()
            })
        })
        .collect();
    let wrong: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let count = SESSIONS * TURNS;
    let what = "lost or mixed, 20 parallel sessions".to_owned();
    let ours = f64::from(u32::try_from(wrong).unwrap());
    rows.add(&Row { what, unit: "execs", count, ours, ..Row::default() }.budget(0.0));
    let rate = f64::from(u32::try_from(count).unwrap()) / began.elapsed().as_secs_f64();
    rows.add(&Row {
        what: "execs in 20 parallel sessions".to_owned(),
        unit: "1/s",
        count,
        ours: rate,
        ..Row::default()
    });
}

/// Every core is busy with what the sessions print. A probe makes a new connection each time.
fn health_under_load(agent: &Agent, rows: &mut Rows) {
    let mut busy: Vec<_> = (0..STREAMING).map(|_| agent.client()).collect();
    for client in &mut busy {
        client.send("/v1/shell/exec", &json!({ "command": "yes 0123456789", "hard_timeout": STREAM }));
    }
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs(STREAM - 1);
    while Instant::now() < end {
        let began = Instant::now();
        assert_eq!(agent.client().get("/v1/sandbox").status, 200);
        times.push(began.elapsed());
    }
    let worst = times.iter().max().copied().unwrap_or_default().as_secs_f64() * 1000.0;
    rows.add(&Row::times("health while 64 sessions stream", &times));
    let what = "  the slowest of them".to_owned();
    rows.add(&Row { what, unit: "ms", count: times.len(), ours: worst, ..Row::default() }.budget(50.0));
    rows.add(&crate::start::memory("resident, 64 sessions stream", agent.resident()));
    for client in &mut busy {
        client.answer();
    }
}
