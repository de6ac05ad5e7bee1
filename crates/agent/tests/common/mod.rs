//! A running agent and the smallest HTTP client that can talk to it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// The built binary on a port of its own. Dropping it kills it.
pub struct Agent {
    pub child: Child,
    pub address: SocketAddr,
    pub home: tempfile::TempDir,
}

impl Agent {
    pub fn start() -> Self {
        Self::start_with(Command::new(env!("CARGO_BIN_EXE_stockade-agent")), &[])
    }

    /// Starts `program` with the agent's arguments behind `extra`.
    pub fn start_with(mut program: Command, extra: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let address = free_address();
        program.args(extra).arg("--listen").arg(address.to_string()).arg("--home").arg(home.path());
        let child = program.stdin(Stdio::null()).spawn().unwrap();
        let agent = Self { child, address, home };
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "the agent does not listen on {address}");
            std::thread::yield_now();
        }
        agent
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Open descriptors of the agent.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Processes whose parent is the agent.
    pub fn children(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task", self.pid());
        let tasks = std::fs::read_dir(path).unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that was resident since the start or [`Self::forget_peak`], in KiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn forget_peak(&self) {
        // 5 is the kernel's word for it (proc(5)).
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn terminate(&self) {
        let status = Command::new("kill").arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this test process's own. None is asked of the kernel by listening for a moment: another thread's child
/// would have that socket until it executes its program, and answer in the agent's place.
fn free_address() -> SocketAddr {
    /// Below what the kernel gives to connections.
    const PORT: u16 = 19_987;
    static AGENTS: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, high, low, AGENTS.fetch_add(1, Ordering::Relaxed)), PORT).into()
}

/// Polls until `done`, which has to happen within the deadline.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }
}

/// One keep-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream: BufReader::with_capacity(256 * 1024, stream) }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        self.answer()
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.raw(format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        self.answer()
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(path, body);
        self.answer()
    }

    /// Sends a request and leaves the answer to be read.
    pub fn send(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body.as_bytes()].concat());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn answer(&mut self) -> Answer {
        let (status, length) = self.head();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Answer { status, body }
    }

    /// Reads the head of an answer: status and length of the body.
    pub fn head(&mut self) -> (u16, u64) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the connection was closed");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                return (status, length);
            }
        }
    }

    /// Asks for an answer in events. Its head is read.
    pub fn ask_for_events(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body.as_bytes()].concat());
        assert_eq!(self.head().0, 200);
    }

    /// The next event of a chunked answer: its name and data. `None`: the answer is complete.
    pub fn event(&mut self, pending: &mut String) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = pending.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = field("event:").map(|name| {
                    (name.to_owned(), serde_json::from_str(field("data:").unwrap_or("")).unwrap())
                });
                *pending = rest.to_owned();
                if found.is_some() {
                    return found;
                }
                continue;
            }
            let mut size = String::new();
            self.stream.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return None;
            }
            pending.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    /// All events of an answer.
    pub fn events(&mut self) -> Vec<(String, Value)> {
        let mut pending = String::new();
        std::iter::from_fn(|| self.event(&mut pending)).collect()
    }

    /// Reads and drops `length` bytes.
    pub fn skip(&mut self, mut length: u64) {
        while length > 0 {
            let got = self.stream.fill_buf().unwrap().len();
            assert!(got > 0, "the connection was closed with {length} bytes missing");
            let taken = got.min(usize::try_from(length).unwrap_or(got));
            self.stream.consume(taken);
            length -= taken as u64;
        }
    }

    pub fn writer(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}
