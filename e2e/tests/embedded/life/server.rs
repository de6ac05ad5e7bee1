//! A server that can be killed and started again on the same state directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use stockade_api::client::Client;
use stockade_e2e::{http, wait};
use tokio::process::{Child, Command};

use crate::world::{Ports, RunBy, program};

/// How long a server may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// The longest any of these tests may take: the machine may be busy with others.
const LIMIT: Duration = Duration::from_secs(300);

/// A server and its state directory.
pub(super) struct Server {
    pub(super) state: PathBuf,
    pub(super) base: PathBuf,
    ports: Ports,
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a test with a server as root; when we are not, it says nothing about this machine and passes.
pub(super) fn with_server(test: impl AsyncFnOnce(&mut Server)) {
    with_server_of(40, test);
}

/// The same with a server that may have so many sandboxes.
pub(super) fn with_server_of(sandboxes: u16, test: impl AsyncFnOnce(&mut Server)) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let _turn = crate::world::one_at_a_time();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = Server::start(Ports::free(sandboxes)).await;
        tokio::time::timeout(LIMIT, test(&mut server)).await.expect("the test is done in time");
        server.down().await;
    });
}

impl Server {
    async fn start(ports: Ports) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (state, base) = (directory.path().join("state"), directory.path().join("base"));
        std::fs::create_dir(&base).unwrap();
        let log = directory.path().join("server.log");
        let child = spawn(&state, &base, &log, ports);
        let mut server = Self { state, base, ports, child, log, _directory: directory };
        server.wait_ready().await;
        server
    }

    /// Ends the server's process at once, and nothing else.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts another on the same state directory.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(&self.state, &self.base, &self.log, self.ports);
        self.wait_ready().await;
    }

    /// What a machine does that loses its power and starts again: no process of ours is left, the files are, and
    /// they tell of an earlier start of the kernel.
    pub(super) async fn reboot(&mut self, sandboxes: &[&str]) {
        let processes: Vec<i32> = sandboxes.iter().map(|id| self.main_process(id)).collect();
        let helpers = ["stockade-relay", "stockade-launcher"].map(|name| self.helpers(name));
        self.kill().await;
        processes.into_iter().chain(helpers.into_iter().flatten()).for_each(super::usual::kill);
        for id in sandboxes {
            let mut record = self.record(id);
            record["life"]["process"]["boot_id"] = "11111111-2222-3333-4444-555555555555".into();
            std::fs::write(self.record_path(id), record.to_string()).unwrap();
        }
        self.start_again().await;
    }

    async fn wait_ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.ports.api);
        let (child, log) = (&mut self.child, &self.log);
        wait::until("the server is ready", READY, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", std::fs::read_to_string(log).unwrap());
            }
            let answer = http::get(&url).await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }

    pub(super) fn client(&self) -> Client {
        let key = std::fs::read_to_string(self.state.join("api-key")).unwrap();
        let url = format!("http://127.0.0.1:{}", self.ports.api);
        Client::new(&url, Some(&SecretString::from(key.trim().to_owned()))).unwrap()
    }

    /// Processes that were started by this server or one before it, by the name they were started under.
    pub(super) fn helpers(&self, name: &str) -> Vec<i32> {
        let state = self.state.to_str().unwrap();
        let server = self.child.id().map(|id| id.to_string());
        processes()
            .filter(|(pid, command)| {
                let is_child = || parent(*pid) == server;
                command.first().is_some_and(|first| first == name)
                    && (command.iter().any(|argument| argument == state) || is_child())
            })
            .map(|(pid, _)| pid)
            .collect()
    }

    /// The main process of a sandbox, as it was written down.
    pub(super) fn main_process(&self, id: &str) -> i32 {
        i32::try_from(self.record(id)["life"]["process"]["pid"].as_i64().unwrap()).unwrap()
    }

    fn record(&self, id: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.record_path(id)).unwrap()).unwrap()
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id).join("record.json")
    }

    /// What is left of sandboxes on this machine: directories, groups, processes.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for below in ["sandboxes", "trash"] {
            left.extend(names(&self.state.join(below)));
        }
        let machine = std::fs::read_to_string(self.state.join("machine.json")).unwrap();
        let machine: serde_json::Value = serde_json::from_str(&machine).unwrap();
        let name = format!("stockade-{}", &machine["id"].as_str().unwrap()[..8]);
        for tree in names(Path::new("/sys/fs/cgroup")) {
            let groups = Path::new("/sys/fs/cgroup").join(&tree).join(&name);
            let inside = names(&groups).into_iter().filter(|entry| groups.join(entry).is_dir());
            left.extend(inside.map(|entry| format!("{tree}/{entry}")));
        }
        let sandboxes = self.state.join("sandboxes");
        left.extend(processes().filter_map(|(pid, command)| {
            let log = std::fs::read_link(format!("/proc/{pid}/fd/1")).ok()?;
            log.starts_with(&sandboxes).then(|| format!("{pid} {command:?}"))
        }));
        left
    }

    /// Waits until nothing is left of any sandbox.
    pub(super) async fn nothing_left(&self) {
        wait::until("nothing is left", Duration::from_secs(30), async || {
            let left = self.leftovers();
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        })
        .await;
    }

    async fn down(mut self) {
        let output = program(RunBy::Root)
            .args(["down", "--purge", "--yes", "--state-dir"])
            .arg(&self.state)
            .output()
            .await
            .unwrap();
        let _ = self.child.wait().await;
        assert!(output.status.success(), "down: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!self.state.exists());
    }
}

fn spawn(state: &Path, base: &Path, log: &Path, ports: Ports) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command: Command = program(RunBy::Root);
    command
        .args(["up", "--listen", &format!("127.0.0.1:{}", ports.api), "--state-dir"])
        .arg(state)
        .env("DEER_FLOW_HOST_BASE_DIR", base)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    ports.give(&mut command);
    command.spawn().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// All processes with their arguments.
fn processes() -> impl Iterator<Item = (i32, Vec<String>)> {
    names(Path::new("/proc")).into_iter().filter_map(|name| {
        let pid = name.parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, command.split('\0').map(str::to_owned).collect()))
    })
}

fn parent(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix("PPid:")?.trim().to_owned()))
}
