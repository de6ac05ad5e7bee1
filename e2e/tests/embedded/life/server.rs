//! A server that can be killed and started again on the same state directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use stockade_api::client::Client;
use stockade_e2e::{http, wait};
use tokio::process::{Child, Command};

use crate::world::{Ports, RunBy, give_to, open_to_all, program, text_of};

/// How long a server may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// The longest any of these tests may take: the machine may be busy with others.
const LIMIT: Duration = Duration::from_secs(300);

/// A server and its state directory.
pub(super) struct Server {
    pub(super) state: PathBuf,
    pub(super) base: PathBuf,
    pub(super) ports: Ports,
    run_by: RunBy,
    environment: Vec<Variable>,
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

/// A variable of the server's environment.
type Variable = (&'static str, OsString);

/// How a server is started.
struct Options {
    run_by: RunBy,
    sandboxes: u16,
    /// From the directory that holds its base.
    environment: fn(&Path) -> Vec<Variable>,
}

impl Options {
    const DEFAULT: Self = Self {
        run_by: RunBy::Root,
        sandboxes: 40,
        environment: |directory| vec![("DEER_FLOW_HOST_BASE_DIR", directory.join("base").into())],
    };
}

/// Runs a test with a server as root; when we are not, it says nothing about this machine and passes.
pub(super) fn with_server(test: impl AsyncFnOnce(&mut Server)) {
    run(&Options::DEFAULT, test);
}

/// The same with a server that may have so many sandboxes.
pub(super) fn with_server_of(sandboxes: u16, test: impl AsyncFnOnce(&mut Server)) {
    run(&Options { sandboxes, ..Options::DEFAULT }, test);
}

/// The same with a server that has these variables, made from a directory that is empty but for `base`.
pub(super) fn with_server_told(environment: fn(&Path) -> Vec<Variable>, test: impl AsyncFnOnce(&mut Server)) {
    run(&Options { environment, ..Options::DEFAULT }, test);
}

/// The same as root and as an ordinary user, or only as the latter when that is what we are.
pub(super) fn with_each_server(test: impl AsyncFn(&mut Server)) {
    for run_by in [RunBy::Root, RunBy::Ordinary] {
        run(&Options { run_by, ..Options::DEFAULT }, &test);
    }
}

/// The same as an ordinary user.
pub(super) fn with_ordinary_server(test: impl AsyncFnOnce(&mut Server)) {
    run(&Options { run_by: RunBy::Ordinary, ..Options::DEFAULT }, test);
}

fn run(options: &Options, test: impl AsyncFnOnce(&mut Server)) {
    if options.run_by == RunBy::Root && !rustix::process::geteuid().is_root() {
        return;
    }
    let _turn = crate::world::one_at_a_time();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = Server::start(options).await;
        let body = std::panic::AssertUnwindSafe(tokio::time::timeout(LIMIT, test(&mut server)));
        let ended = futures::FutureExt::catch_unwind(body).await;
        let log = server.last_words();
        // Whatever became of the test: nothing of it may be in the way of the next one.
        server.down().await;
        match ended {
            Ok(done) => assert!(done.is_ok(), "not done within {LIMIT:?} as {:?}\n{log}", options.run_by),
            Err(panic) => panic!("as {:?}: {}\n{log}", options.run_by, text_of(panic.as_ref())),
        }
    });
}

impl Server {
    async fn start(options: &Options) -> Self {
        let ports = Ports::free(options.sandboxes);
        let directory = tempfile::tempdir().unwrap();
        let (state, base) = (directory.path().join("state"), directory.path().join("base"));
        for path in [&state, &base] {
            std::fs::create_dir(path).unwrap();
        }
        open_to_all(directory.path());
        give_to(options.run_by, &[directory.path(), &state, &base]);
        let log = directory.path().join("server.log");
        let environment = (options.environment)(directory.path());
        let child = spawn(options.run_by, &state, &environment, &log, ports);
        let run_by = options.run_by;
        let mut server = Self { state, base, ports, run_by, environment, child, log, _directory: directory };
        server.wait_ready().await;
        server
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.get(log.len().saturating_sub(4000)..).unwrap_or(&log).to_owned()
    }

    /// Asks the server to end, and waits until it has.
    pub(super) async fn end(&mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(READY, self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
    }

    /// Ends the server's process at once, and nothing else.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts another on the same state directory.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(self.run_by, &self.state, &self.environment, &self.log, self.ports);
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
        self.written_process(id).unwrap()
    }

    /// The same of a sandbox that may just have ended.
    pub(super) fn written_process(&self, id: &str) -> Option<i32> {
        self.record(id)["life"]["process"]["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap())
    }

    fn record(&self, id: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.record_path(id)).unwrap()).unwrap()
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id).join("record.json")
    }

    /// Sandboxes that are prepared ahead, by the names that their groups have.
    pub(super) fn standbys(&self) -> Vec<String> {
        names(&self.state.join("standby"))
    }

    /// What is left of sandboxes on this machine: directories, groups, processes. Those to come are none yet.
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
            let standbys = self.standbys();
            let inside = inside.filter(|entry| !standbys.contains(entry));
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

    /// Processes that are the first of a sandbox: what they write is its log.
    pub(super) fn agents(&self) -> usize {
        let sandboxes = self.state.join("sandboxes");
        let is_agent = |(pid, _): &(i32, Vec<String>)| {
            let log = std::fs::read_link(format!("/proc/{pid}/fd/1"));
            log.is_ok_and(|log| log.starts_with(&sandboxes))
        };
        processes().filter(is_agent).count()
    }

    /// Processes that wait for the sandbox whose first they will be.
    pub(super) fn waiting(&self) -> Vec<i32> {
        let launchers = self.helpers("stockade-launcher").into_iter().map(|pid| pid.to_string());
        let launchers: Vec<String> = launchers.collect();
        let sandboxes = self.state.join("sandboxes");
        let waits = |pid: &i32| {
            let log = std::fs::read_link(format!("/proc/{pid}/fd/1"));
            parent(*pid).is_some_and(|parent| launchers.contains(&parent))
                && is_waiting(*pid)
                && !log.is_ok_and(|log| log.starts_with(&sandboxes))
        };
        processes().map(|(pid, _)| pid).filter(waits).collect()
    }

    /// Ports for sandboxes that are open now.
    pub(super) fn open_ports(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let of_sandboxes = self.ports.api + 1..=self.ports.api + self.ports.sandboxes;
        let listening = table.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let port = u16::from_str_radix(fields.next()?.split_once(':')?.1, 16).ok()?;
            (fields.nth(1) == Some("0A")).then_some(port)
        });
        listening.filter(|port| of_sandboxes.contains(port)).count()
    }

    async fn down(mut self) {
        let output = program(self.run_by)
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

fn spawn(run_by: RunBy, state: &Path, environment: &[Variable], log: &Path, ports: Ports) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command: Command = program(run_by);
    command
        .args(["up", "--listen", &format!("127.0.0.1:{}", ports.api), "--state-dir"])
        .arg(state)
        .envs(environment.iter().map(|(name, value)| (name, value)))
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

/// Whether the process was executed to wait for a sandbox. It may have become one.
pub(super) fn is_waiting(pid: i32) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split('\0').nth(1) == Some("await-sandbox")
}

fn parent(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix("PPid:")?.trim().to_owned()))
}
