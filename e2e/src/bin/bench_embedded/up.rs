//! The server that is measured: `stockade up` in a directory of its own, ended with everything it made.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stockade_e2e::{http, wait};
use tokio::time::timeout;

use crate::proc;

/// Longer than any caller waits.
const LIMIT: Duration = Duration::from_secs(60);
/// Below the ports of the tests (20000 and up) and the kernel's ephemeral ones.
const API_PORTS: std::ops::Range<u16> = 11_000..11_100;
const SANDBOX_PORTS: &str = "11100-18999";
/// As many sandboxes at once as any part makes, and some more that are on their way out.
const MAX: &str = "700";
/// How many threads the sandboxes belong to in turn: their directories stay.
const THREADS: usize = 16;

/// A running server and its directory.
pub(crate) struct Up {
    pub(crate) state: PathBuf,
    base: PathBuf,
    url: String,
    key: String,
    child: Child,
    program: PathBuf,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

/// What a sandbox reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Isolated,
    Open,
}

impl Up {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(program: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("stockade-bench-").tempdir().expect("a directory");
        let (state, base) = (directory.path().join("state"), directory.path().join("base"));
        deerflow_directories(&base);
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = API_PORTS.clone().find(free).expect("a free port below those of sandboxes");
        let log = directory.path().join("server.log");
        let file = std::fs::File::create(&log).expect("a file for the log");
        let mut command = bare(program);
        command.args(["up", "--listen", &format!("127.0.0.1:{port}"), "--state-dir"]).arg(&state);
        command.env("SANDBOX_PORT_RANGE", SANDBOX_PORTS).env("SANDBOX_MAX", MAX);
        command.env("DEER_FLOW_HOST_BASE_DIR", &base).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a second descriptor of the log")).stderr(file);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let url = format!("http://127.0.0.1:{port}");
        // From here on it is ended whatever happens.
        let mut up = Self {
            state,
            base,
            url,
            key: String::new(),
            child,
            program: program.to_owned(),
            log,
            _directory: directory,
        };
        up.wait_ready().await;
        let key = std::fs::read_to_string(up.state.join("api-key")).expect("a key in the state directory");
        key.trim().clone_into(&mut up.key);
        up
    }

    async fn wait_ready(&mut self) {
        let ready = format!("{}/readyz", self.url);
        wait::until("the server is ready", LIMIT, async || {
            if let Some(status) = self.child.try_wait().expect("a status") {
                panic!("the server ended with {status}:\n{}", self.log_text());
            }
            let answer = http::get(&ready).await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }

    fn log_text(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.get(log.len().saturating_sub(4000)..).unwrap_or(&log).to_owned()
    }

    /// A new caller, with a connection of its own.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Caller { up: self, http: HttpClient::builder(TokioExecutor::new()).build(connector) }
    }

    /// The server's process.
    pub(crate) fn server(&self) -> u32 {
        self.child.id()
    }

    /// Its launcher and its relay, by the names they were started under.
    pub(crate) fn helper(&self, name: &str) -> Option<u32> {
        let state = self.state.to_str().expect("temporary directories have plain names");
        proc::all().into_iter().find(|pid| {
            let command = proc::arguments(*pid);
            let ours = || {
                command.iter().any(|argument| argument == state) || proc::parent(*pid) == Some(self.server())
            };
            command.first().is_some_and(|first| first == name) && ours()
        })
    }

    /// Waits until nothing of any sandbox is in the state directory.
    pub(crate) async fn wait_gone(&self) {
        wait::until("removed sandboxes are gone", LIMIT, async || {
            let left: usize =
                ["sandboxes", "trash"].iter().map(|below| proc::names(&self.state.join(below)).len()).sum();
            if left == 0 { Ok(()) } else { Err(format!("{left} directories")) }
        })
        .await;
    }

    /// What names this machine among those that share its kernel.
    pub(crate) fn machine(&self) -> String {
        let text = std::fs::read(self.state.join("machine.json")).expect("the state directory has a machine");
        let machine: Value = serde_json::from_slice(&text).expect("JSON");
        machine["id"].as_str().and_then(|id| id.get(..8)).expect("an id").to_owned()
    }

    /// Ends it and all it made, and wants that to work.
    pub(crate) fn end(mut self) {
        assert!(self.down(), "stockade down failed:\n{}", self.log_text());
    }

    /// Asks the server to end, and removes everything. It is asked twice where it was ended before: no harm.
    fn down(&mut self) -> bool {
        let mut down = bare(&self.program);
        down.args(["down", "--purge", "--yes", "--state-dir"]).arg(&self.state).stdout(Stdio::null());
        if !self.state.exists() {
            let _ = self.child.kill();
            return self.child.wait().is_ok();
        }
        let done = down.status().is_ok_and(|status| status.success());
        if !done && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.child.wait().is_ok() && done
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.state.exists() {
            // On the way out of a failure that is told already.
            let _ = self.down();
        }
    }
}

/// What DeerFlow makes on the machine before its first sandbox.
fn deerflow_directories(base: &Path) {
    for part in ["skills_view/public", "users/default/skills_view/custom", "users/default/skills_view/legacy"]
    {
        std::fs::create_dir_all(base.join(part)).expect("a directory");
    }
    for thread in 0..THREADS {
        let thread = base.join("users/default/threads").join(thread_of(thread));
        for part in ["user-data/workspace", "user-data/uploads", "user-data/outputs", "acp-workspace"] {
            std::fs::create_dir_all(thread.join(part)).expect("a directory");
        }
    }
}

fn thread_of(number: usize) -> String {
    format!("thread-{}", number % THREADS)
}

/// The program without anything of our environment.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// One connection's worth of a client: as every gateway has its own.
pub(crate) struct Caller<'a> {
    up: &'a Up,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Caller<'_> {
    /// Makes a sandbox as DeerFlow does; its URL.
    pub(crate) async fn create(&self, number: usize, network: Network) -> String {
        let thread = thread_of(number);
        let acp = self.up.base.join("users/default/threads").join(&thread).join("acp-workspace");
        let mode = if network == Network::Open { "open" } else { "isolated" };
        let body = json!({
            "sandbox_id": id(number),
            "thread_id": thread,
            "user_id": "default",
            "include_legacy_skills": true,
            "extra_mounts": [{ "host_path": acp, "container_path": "/mnt/acp-workspace", "read_only": true }],
            "network": { "mode": mode },
        });
        let body = self.call("POST", "/api/sandboxes", body.to_string()).await;
        let sandbox: Value = serde_json::from_slice(&body).expect("JSON");
        sandbox["sandbox_url"].as_str().expect("a URL").to_owned()
    }

    pub(crate) async fn get(&self, number: usize) {
        self.call("GET", &format!("/api/sandboxes/{}", id(number)), String::new()).await;
    }

    /// The whole list, read and not parsed: that is the caller's work.
    pub(crate) async fn list(&self) -> Bytes {
        self.call("GET", "/api/sandboxes", String::new()).await
    }

    pub(crate) async fn count(&self) -> Option<u64> {
        let list: Value = serde_json::from_slice(&self.list().await).expect("JSON");
        list["count"].as_u64()
    }

    pub(crate) async fn delete(&self, number: usize) {
        self.call("DELETE", &format!("/api/sandboxes/{}", id(number)), String::new()).await;
    }

    pub(crate) async fn pause(&self, number: usize) {
        self.call("POST", &format!("/api/sandboxes/{}/pause", id(number)), String::new()).await;
    }

    /// What the server needs for an answer that says nothing.
    pub(crate) async fn nothing(&self) {
        self.call("GET", "/health", String::new()).await;
    }

    /// A command in a sandbox, through its URL.
    pub(crate) async fn run(&self, url: &str, route: &str, command: &str) {
        let body =
            self.send("POST", format!("{url}{route}"), json!({ "command": command }).to_string()).await;
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["data"]["exit_code"], 0, "{command}: {answer}");
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Bytes {
        self.send(method, format!("{}{path}", self.up.url), body).await
    }

    async fn send(&self, method: &str, uri: String, body: String) -> Bytes {
        let mut request = ::http::Request::builder().method(method).uri(&uri);
        // Sandboxes are not shown the key.
        if uri.starts_with(&self.up.url) {
            request = request.header("x-api-key", &self.up.key);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::from(body)).expect("a request");
        let exchange = async {
            let answer = self.http.request(request).await.unwrap_or_else(|error| panic!("{uri}: {error:?}"));
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
            assert!(status.is_success(), "{method} {uri}: {status} {}", String::from_utf8_lossy(&body));
            body
        };
        timeout(LIMIT, exchange)
            .await
            .unwrap_or_else(|_| panic!("{method} {uri}: no answer within {LIMIT:?}"))
    }
}

/// Waits for the first 200 of a sandbox, on a connection of its own.
pub(crate) async fn first_answer(url: &str) {
    let url = format!("{url}/v1/sandbox");
    wait::often("the first answer", LIMIT, async || {
        let answer = http::get(&url).await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

pub(crate) fn id(number: usize) -> String {
    format!("bench-{number:05}")
}
