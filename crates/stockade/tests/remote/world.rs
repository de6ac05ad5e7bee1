//! A server, its sandboxes, and the command line that talks to them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use stockade_core::backend::{BackendHealth, Capabilities, Features, LogOptions, LogStream};
use stockade_core::egress::NetworkMode;
use stockade_core::layout::LarkSupport;
use stockade_core::sandbox::{Reconciliation, SandboxEvent};
use stockade_core::{Backend, BackendError, ContractVersion, Sandbox, SandboxId, SandboxSpec, Status};
use stockade_server::{Access, AllowedHosts, ServerSettings, ServerState, router, serve};
use tokio::sync::{broadcast, oneshot};

pub(crate) const KEY: &str = "a-key-of-this-test";
/// The end of every log: a title for the terminal, a line that is shown backwards, and one that overwrites itself.
pub(crate) const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{202e}txt\rover\u{9b}2J\tend\n";
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A server with a directory of its own. Dropping it ends everything.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
    /// Sandboxes that are as a test says.
    others: Others,
    end: Option<oneshot::Sender<()>>,
    server: Option<thread::JoinHandle<()>>,
}

impl World {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let others = Others::default();
        let shown = Arc::clone(&others);
        let server = thread::spawn(move || run_server(listener, shown, ended));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), format!("{KEY}\n")).unwrap();
        Self { address, dir, others, end: Some(end), server: Some(server) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The command line, which finds this server and its key by variable and file.
    pub(crate) fn stockade(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        command.args(arguments).env_clear().env("STOCKADE_URL", self.url()).env("PROVISIONER_API_KEY", KEY);
        command.env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.stockade(arguments).output().unwrap())
    }

    /// Runs it with this input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.stockade(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = thread::spawn(move || {
            // A command may end before it has read all.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Shows a sandbox of this address that runs.
    pub(crate) fn lead(&self, id: &str, url: &str) {
        self.show(mk_sandbox(id.parse().unwrap(), url.to_owned()));
    }

    /// Shows this sandbox.
    pub(crate) fn show(&self, sandbox: Sandbox) {
        self.others.lock().insert(sandbox.id.clone(), Arc::new(sandbox));
    }

    /// Makes a sandbox that is ready.
    pub(crate) fn create(&self, id: &str) {
        let said = self.run(&["create", id, "--wait"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(server) = self.server.take() {
            // A panic of its own thread is in the output already.
            let _ = server.join();
        }
    }
}

fn run_server(listener: TcpListener, others: Others, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let settings = ServerSettings {
            access: Access::key(&SecretString::from(KEY)),
            allowed_hosts: AllowedHosts::default(),
            metrics_need_key: false,
        };
        let state = ServerState::new(
            Arc::new(Agents { made: Mutex::default(), others, ended: broadcast::Sender::new(1) }),
            settings,
            Registry::default(),
        );
        let shutdown = async move { drop(ended.await) };
        serve(listener, router(state), shutdown, Duration::from_millis(100)).await;
    });
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The time between two looks at what tells nobody of its change.
#[allow(clippy::disallowed_methods)]
pub(crate) fn breathe(time: Duration) {
    thread::sleep(time);
}

/// Waits for a process to end.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "the process does not end");
        breathe(Duration::from_millis(5));
    }
}

/// What a process prints, as it comes. A thread reads it, so that waiting for it has an end.
pub(crate) struct Printed {
    pieces: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Printed {
    pub(crate) fn by(mut from: impl Read + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, seen: Vec::new() }
    }

    /// Waits until this text has come; everything since the last time, it included.
    pub(crate) fn until(&mut self, expect: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = text.find(expect) {
                let (before, after) = text.split_at(at + expect.len());
                self.seen = after.as_bytes().to_vec();
                return before.to_owned();
            }
            match self.pieces.recv_timeout(DEADLINE) {
                Ok(piece) => self.seen.extend(piece),
                Err(error) => panic!("{expect:?} does not come ({error}): {text:?}"),
            }
        }
    }
}

type Others = Arc<Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>>;

/// Sandboxes that are agents without any isolation.
struct Agents {
    made: Mutex<BTreeMap<SandboxId, Agent>>,
    others: Others,
    ended: broadcast::Sender<()>,
}

/// A sandbox that runs and that nobody owns.
pub(crate) fn mk_sandbox(id: SandboxId, url: String) -> Sandbox {
    Sandbox {
        id,
        url,
        status: Status::Running,
        ready: true,
        reason: None,
        message: None,
        created_at: Some(jiff::Timestamp::now()),
        identity: None,
        contract: Some(ContractVersion::V2),
        disk_used: None,
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

struct Agent {
    child: Child,
    _home: tempfile::TempDir,
    sandbox: Arc<Sandbox>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(spec: &SandboxSpec) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listen = free_address().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_stockade"))
            .arg0("stockade-agent")
            .args(["--listen", &listen, "--home"])
            .arg(home.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(&spec.env)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(&listen).is_err() {
            assert!(Instant::now() < end, "the agent does not listen");
            thread::yield_now();
        }
        let sandbox = mk_sandbox(spec.id.clone(), format!("http://{listen}"));
        let sandbox = Arc::new(Sandbox { identity: Some(spec.identity()), ..sandbox });
        Self { child, _home: home, sandbox }
    }
}

#[async_trait]
impl Backend for Agents {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            lark: LarkSupport { runtime: false, broker: false },
            contract: ContractVersion::V2,
            features: Features { env: true, resources: true, network: &[NetworkMode::Open] },
        }
    }

    fn health(&self) -> BackendHealth {
        BackendHealth { ready: true, parts: vec![], sandboxes: 0, proven_age: None }
    }

    async fn create(&self, spec: &SandboxSpec, _: Instant) -> Result<Arc<Sandbox>, BackendError> {
        let mut agents = self.made.lock();
        let agent = agents.entry(spec.id.clone()).or_insert_with(|| Agent::start(spec));
        Ok(Arc::clone(&agent.sandbox))
    }

    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
        let other = self.others.lock().get(id).cloned();
        Ok(other.or_else(|| self.made.lock().get(id).map(|agent| Arc::clone(&agent.sandbox))))
    }

    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError> {
        Ok(self.made.lock().values().map(|agent| Arc::clone(&agent.sandbox)).collect())
    }

    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError> {
        self.made.lock().remove(id);
        // Nobody may follow a log.
        let _ = self.ended.send(());
        Ok(())
    }

    async fn reconcile(&self, _: &SandboxId) -> Result<Reconciliation, BackendError> {
        Ok(Reconciliation { backend_namespace: "here".into(), found: None })
    }

    async fn namespace_id(&self) -> Result<String, BackendError> {
        Ok("here".into())
    }

    async fn wait_ready(&self, id: &SandboxId, _: Instant) -> Result<Arc<Sandbox>, BackendError> {
        self.get(id).await?.ok_or(BackendError::NotFound { id: id.clone() })
    }

    async fn events(&self, _: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
        let message = "the agent listens".to_owned();
        let reason = "Started".to_owned();
        Ok(vec![SandboxEvent { last_seen: None, count: 2, warning: false, reason, message }])
    }

    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError> {
        if self.get(id).await?.is_none() {
            return Err(BackendError::NotFound { id: id.clone() });
        }
        let lines = ["first\n".to_owned(), format!("{options:?}\n"), HOSTILE.to_owned()];
        let lines = stream::iter(lines.map(|line| Ok(Bytes::from(line))));
        if !options.follow {
            return Ok(Box::pin(lines));
        }
        // It goes on until the sandbox's agent has ended.
        let mut ended = self.ended.subscribe();
        let end = stream::once(async move { drop(ended.recv().await) }).filter_map(async |()| None);
        Ok(Box::pin(lines.chain(end)))
    }
}
