//! A running sandbox, and how to have commands run in it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::{Value, json};
use stockade_embedded::launch::Launched;

use crate::world::{PORT, within};

pub(crate) struct Sandbox {
    pub(crate) launched: Launched,
    network: OwnedFd,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) output: String,
    pub(crate) code: i64,
}

const DEADLINE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

impl Sandbox {
    pub(crate) fn new(launched: Launched, network: OwnedFd) -> Self {
        Self { launched, network }
    }

    /// Waits for the agent; false when it died instead.
    pub(crate) fn becomes_ready(&self) -> bool {
        let mut polled = [PollFd::new(&self.launched.ready, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&DEADLINE)).unwrap(), 1, "neither ready nor dead");
        rustix::io::read(&self.launched.ready, &mut [0; 1]).unwrap() == 1
    }

    /// Runs a shell command inside and returns what it wrote.
    pub(crate) fn run(&self, command: &str) -> Outcome {
        let body = json!({ "command": command, "timeout": 120 }).to_string();
        let answer = within(&self.network, || post("/v1/bash/exec", &body));
        let data = answer.get("data").cloned().unwrap_or_default();
        let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = data.get("exit_code").and_then(Value::as_i64).unwrap_or(-1);
        assert!(code >= 0, "{answer}");
        Outcome { output: text("stdout") + &text("stderr"), code }
    }

    /// Runs a command that has to succeed and returns what it wrote, without the last newline.
    pub(crate) fn said(&self, command: &str) -> String {
        let outcome = self.run(command);
        assert_eq!(outcome.code, 0, "{command}: {}", outcome.output);
        outcome.output.trim_end().to_owned()
    }

    /// Runs a command that must not succeed.
    pub(crate) fn refused(&self, command: &str) -> String {
        let outcome = self.run(command);
        assert_ne!(outcome.code, 0, "{command}: {}", outcome.output);
        outcome.output
    }
}

fn post(path: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(150))).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended by itself; the process descriptor cannot name another.
        let _ = pidfd_send_signal(&self.launched.pidfd, Signal::KILL);
        let mut polled = [PollFd::new(&self.launched.pidfd, PollFlags::IN)];
        let _ = poll(&mut polled, Some(&DEADLINE));
    }
}
