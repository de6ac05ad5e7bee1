//! The server under test, as a child process.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret, SecretString};
use stockade_api::client::Client;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::http::{self, Answer};
use crate::wait;

/// How long a server may take to be ready. On two busy cores the cluster's answers are what takes long.
const READY: Duration = Duration::from_secs(30);
/// The promise: a signal ends the server, with 0, in this time.
const END: Duration = Duration::from_secs(5);
/// What measuring [`END`] from outside adds.
const END_MARGIN: Duration = Duration::from_millis(300);

/// A running server. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it answers, without a slash at the end.
    pub url: String,
    key: SecretString,
    log: PathBuf,
    child: Arc<Mutex<Option<Child>>>,
}

/// How to start one.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program.
    pub binary: &'a Path,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// The key it was given.
    pub key: SecretString,
    /// Where its log goes.
    pub log: PathBuf,
}

impl Server {
    /// Starts one, without waiting until it is ready.
    #[must_use]
    pub fn spawn(start: Start<'_>) -> Self {
        let port = free_port();
        let log = File::create(&start.log).expect("a file for the log");
        let child = Command::new(start.binary)
            .args(["serve", "--log-format", "json", "--listen", &format!("127.0.0.1:{port}")])
            .env_clear()
            .envs(start.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor of the log"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", start.binary.display()));
        Self {
            url: format!("http://127.0.0.1:{port}"),
            key: start.key,
            log: start.log,
            child: Arc::new(Mutex::new(Some(child))),
        }
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self) {
        wait::until("the server is ready", READY, async || {
            if let Some(status) = self.ended().await {
                panic!("the server ended with {status}:\n{}", self.log_text());
            }
            let answer = http::get(&format!("{}/readyz", self.url)).await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }

    /// A typed client with the right key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.url, Some(&self.key)).expect("a client")
    }

    /// A request with the right key, below the server's address.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> ::http::request::Builder {
        ::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("x-api-key", self.key.expose_secret())
    }

    /// A GET with the right key.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.request("GET", path).body(Vec::new()).expect("a request");
        http::send(request).await.expect("an answer")
    }

    /// A create with this body.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        let request = self.request("POST", path).header("content-type", "application/json");
        http::send(request.body(body.to_string().into_bytes()).expect("a request")).await.expect("an answer")
    }

    /// The value of a metric's sample, by its name with labels.
    pub async fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text();
        let line =
            text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where it logs to.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its process id while it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// How it ended, when it has.
    pub async fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().await.as_mut().and_then(|child| child.try_wait().expect("a status"))
    }

    /// Asks it to end and wants it to do so in time and with 0. Fine when it was ended before.
    pub async fn stop(&self) {
        let Some(mut child) = self.child.lock().await.take() else { return };
        let started = Instant::now();
        signal(&child, Signal::TERM);
        let status = tokio::time::timeout(END + END_MARGIN, child.wait()).await;
        let status = status.unwrap_or_else(|_| {
            panic!("the server runs {} s after SIGTERM:\n{}", END.as_secs(), self.log_text())
        });
        let status = status.expect("a status");
        assert!(status.success(), "after SIGTERM the server ended with {status}:\n{}", self.log_text());
        assert!(started.elapsed() <= END + END_MARGIN);
    }

    /// Ends it as a crash would.
    pub async fn kill(&self) {
        let Some(mut child) = self.child.lock().await.take() else { return };
        child.kill().await.expect("a killed server");
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("a running server"), signal).expect("a signal that arrives");
}

/// A port nobody listens on. Below the NodePorts (30000) and the kernel's ephemeral ports, so that no
/// other connection takes it before the server does.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 8000).unwrap_or_default();
    for _ in 0..8000 {
        let port = 21_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 8000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from 21000 to 28999 is free on 127.0.0.1")
}
