//! The figures of the agent, printed beside what the machine does without it.
//!
//! `cargo bench -p stockade-agent --bench agent [-- BINARY]`; without a binary the one of this build.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may panic")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Agent, Client};
use serde_json::json;

const GIGABYTE: u64 = 1_000_000_000;
const FILES: usize = 100_000;

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let program = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_stockade-agent").to_owned());
    let agent = Agent::start_with(Command::new(&program), &[]);
    let size = std::fs::metadata(&program).unwrap().len();
    say(&format!("binary {:.2} MB; idle {} KiB resident", mega(size), agent.resident()));
    start_up(&program);
    exec_true(&agent);
    parallel_sessions(&agent);
    health_under_load(&agent);
    transfer(&agent);
    search(&agent);
    say(&format!("resident after all of it: {} KiB", agent.resident()));
}

#[allow(clippy::print_stdout, reason = "what a benchmark is for")]
fn say(line: &str) {
    println!("{line}");
}

#[allow(clippy::cast_precision_loss)]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn start_up(program: &str) {
    let times = (0..20).map(|_| {
        let began = Instant::now();
        let agent = Agent::start_with(Command::new(program), &[]);
        assert_eq!(agent.client().get("/v1/sandbox").status, 200);
        began.elapsed()
    });
    let (median, worst) = median(times.collect());
    say(&format!("exec to first 200: median {median:?}, worst of 20 {worst:?}"));
}

fn exec_true(agent: &Agent) {
    let mut client = agent.client();
    let id = client.post("/v1/shell/sessions/create", &json!({})).data()["session_id"].clone();
    for (name, body) in [
        ("shell, known session", json!({ "id": id, "command": "true" })),
        ("shell, new session each", json!({ "command": "true" })),
    ] {
        let times = (0..300).map(|_| timed(&mut client, "/v1/shell/exec", &body));
        let (median, p99) = median(times.collect());
        say(&format!("exec true, {name}: median {median:?}, p99 {p99:?}"));
    }
    let times = (0..300).map(|_| timed(&mut client, "/v1/bash/exec", &json!({ "command": "true" })));
    let (mid, p99) = median(times.collect());
    say(&format!("exec true, bash: median {mid:?}, p99 {p99:?}"));
    let times = (0..100).map(|_| {
        let began = Instant::now();
        Command::new("bash").args(["-c", "true"]).status().unwrap();
        began.elapsed()
    });
    let (mid, _) = median(times.collect());
    say(&format!("  the machine's own `bash -c true`: median {mid:?}"));
}

fn timed(client: &mut Client, path: &str, body: &serde_json::Value) -> Duration {
    let began = Instant::now();
    let answer = client.post(path, body);
    assert_eq!(answer.data()["exit_code"], 0);
    began.elapsed()
}

fn parallel_sessions(agent: &Agent) {
    let began = Instant::now();
    let threads: Vec<_> = (0..20)
        .map(|session| {
            let mut client = agent.client();
            std::thread::spawn(move || {
                let id = client.post("/v1/shell/sessions/create", &json!({})).data()["session_id"].clone();
                for turn in 0..50 {
                    let command = format!("for i in 1 2 3 4 5; do echo {session}-{turn}-$i; done");
                    let answer =
                        client.post("/v1/shell/exec", &json!({ "id": id, "command": command })).data();
                    let expect: String = (1..=5).map(|i| format!("{session}-{turn}-{i}\n")).collect();
                    assert_eq!(answer["output"], expect);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    say(&format!("1000 execs in 20 parallel sessions: {:?}, none lost, none mixed", began.elapsed()));
}

fn health_under_load(agent: &Agent) {
    let mut busy: Vec<_> = (0..64).map(|_| agent.client()).collect();
    for client in &mut busy {
        client.send("/v1/shell/exec", &json!({ "command": "yes 0123456789", "hard_timeout": 5 }));
    }
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let began = Instant::now();
        assert_eq!(agent.client().get("/v1/sandbox").status, 200);
        times.push(began.elapsed());
    }
    let worst = times.iter().max().copied().unwrap_or_default();
    let count = times.len();
    let (mid, p99) = median(times);
    say(&format!("health while 64 sessions stream: median {mid:?}, p99 {p99:?}, worst {worst:?} of {count}"));
    for client in &mut busy {
        client.answer();
    }
}

fn transfer(agent: &Agent) {
    let mut client = agent.client();
    let path = agent.home.path().join("big");
    let boundary = "----bench";
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"path\"\r\n\r\n{}\r\n--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"big\"\r\n\r\n",
        path.display()
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + GIGABYTE + tail.len() as u64;
    let chunk = vec![b'x'; 1_000_000];
    let began = Instant::now();
    client.raw(
        format!("POST /v1/file/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary={boundary}\r\ncontent-length: {length}\r\n\r\n{head}")
            .as_bytes(),
    );
    let mut most = 0;
    for part in 0..GIGABYTE / 1_000_000 {
        client.writer().write_all(&chunk).unwrap();
        if part % 100 == 0 {
            most = most.max(agent.resident());
        }
    }
    client.raw(tail.as_bytes());
    assert_eq!(client.answer().data()["file_size"], GIGABYTE);
    let rate = mega(GIGABYTE) / began.elapsed().as_secs_f64();
    say(&format!("upload of 1 GB: {rate:.0} MB/s, at most {most} KiB resident"));

    let began = Instant::now();
    client.raw(
        format!("GET /v1/file/download?path={} HTTP/1.1\r\nhost: localhost\r\n\r\n", path.display())
            .as_bytes(),
    );
    let (status, length) = client.head();
    assert_eq!((status, length), (200, GIGABYTE));
    client.skip(length);
    let rate = mega(GIGABYTE) / began.elapsed().as_secs_f64();
    say(&format!("download of 1 GB: {rate:.0} MB/s, {} KiB resident", agent.resident()));
    std::fs::remove_file(path).unwrap();
}

fn search(agent: &Agent) {
    let root = agent.home.path().join("tree");
    for directory in 0..FILES / 100 {
        let directory = root.join(format!("d{}", directory / 32)).join(format!("e{directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            let text = format!("fn function_{file}() {{}}\nplain text line\nneedle_{file}\n");
            std::fs::write(
                directory.join(format!("f{file}.{}", if file % 2 == 0 { "py" } else { "rs" })),
                text,
            )
            .unwrap();
        }
    }
    let mut client = agent.client();
    let root = root.to_string_lossy().into_owned();
    let grep = json!({ "path": root, "pattern": "needle_7[0-4]$", "max_results": 100_000 });
    let glob =
        json!({ "path": root, "pattern": "**/*.py", "max_results": 100_000, "include_metadata": false });
    compare(&mut client, "grep", "/v1/file/grep", &grep, &["-n", "--no-heading", "needle_7[0-4]$", &root]);
    compare(&mut client, "glob", "/v1/file/glob", &glob, &["--files", "-g", "*.py", &root]);
    let find = json!({ "path": root, "glob": "**/*.py" });
    compare(&mut client, "find", "/v1/file/find", &find, &["--files", "-g", "*.py", &root]);
}

fn compare(client: &mut Client, name: &str, route: &str, body: &serde_json::Value, ripgrep: &[&str]) {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(client.post(route, body).status, 200);
        ours.push(began.elapsed());
        let began = Instant::now();
        let ran = Command::new("rg").args(ripgrep).stdin(Stdio::null()).output();
        theirs.push(began.elapsed());
        if ran.is_err() {
            theirs.clear();
        }
    }
    let (ours, _) = median(ours);
    let theirs =
        if theirs.is_empty() { "not installed".to_owned() } else { format!("{:?}", median(theirs).0) };
    say(&format!("{name} over {FILES} files: median {ours:?}; ripgrep: {theirs}"));
}
