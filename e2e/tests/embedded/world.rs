//! One server started by `stockade up`, with a state directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use stockade_api::CreateSandbox;
use stockade_api::client::Client;
use stockade_e2e::{http, wait};
use tokio::process::{Child, Command};

use crate::sandbox::Sandbox;

/// How long a server may take to be ready, and to end.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest a create may be told to wait for the sandbox to be ready.
const READY: Duration = Duration::from_secs(25);
/// The longest any test may take, as one user.
const LIMIT: Duration = Duration::from_secs(150);
/// A user of the machine that nobody is.
const ORDINARY: u32 = 61_234;

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunBy {
    /// Root.
    Root,
    /// A user without any right.
    Ordinary,
}

/// A running server.
pub(crate) struct World {
    /// Who runs it.
    pub(crate) run_by: RunBy,
    /// Its state directory.
    pub(crate) state: PathBuf,
    client: Client,
    port: u16,
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a test as root and as an ordinary user, or only as the latter when that is what we are.
pub(crate) fn as_each_user(test: impl AsyncFn(&World)) {
    let users: &[RunBy] = match rustix::process::geteuid().is_root() {
        true => &[RunBy::Root, RunBy::Ordinary],
        false => &[RunBy::Ordinary],
    };
    users.iter().for_each(|user| run(*user, &test));
}

/// Runs a test as root; when we are not, it says nothing about this machine and passes.
pub(crate) fn as_root(test: impl AsyncFn(&World)) {
    if rustix::process::geteuid().is_root() {
        run(RunBy::Root, &test);
    }
}

/// The turn of one test: several fill the machine on purpose.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // What a failed test left is in a directory of its own.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(user: RunBy, test: &impl AsyncFn(&World)) {
    let _turn = one_at_a_time();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::start(user).await;
        let failure = {
            let body = std::panic::AssertUnwindSafe(tokio::time::timeout(LIMIT, test(&world)));
            futures::FutureExt::catch_unwind(body).await
        };
        world.end().await;
        match failure {
            Ok(Ok(())) => {}
            Ok(Err(_)) => panic!("as {user:?}: not done within {LIMIT:?}\n{}", world.log()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                panic!("as {user:?}: {text}\n{}", world.log());
            }
        }
    });
}

impl World {
    async fn start(run_by: RunBy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        open_to_all(directory.path());
        if rustix::process::geteuid().is_root() && run_by == RunBy::Ordinary {
            // The one above too: the purge at the end removes an entry of it.
            for path in [directory.path(), &state] {
                std::os::unix::fs::chown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
        let log = directory.path().join("server.log");
        let ports = Ports::free(40);
        let mut command = program(run_by);
        let file = std::fs::File::create(&log).unwrap();
        command.args(["up", "--listen", &format!("127.0.0.1:{}", ports.api)]).arg("--state-dir").arg(&state);
        ports.give(&mut command);
        command.env("NODE_HOST", "127.0.0.1").stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let url = format!("http://127.0.0.1:{}", ports.api);
        wait::until("the server is ready", DEADLINE, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap());
            }
            let answer = http::get(&format!("{url}/readyz")).await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let key = std::fs::read_to_string(state.join("api-key")).unwrap();
        let client = Client::new(&url, Some(&SecretString::from(key.trim().to_owned()))).unwrap();
        Self { run_by, state, client, port: ports.api, child, log, _directory: directory }
    }

    /// A sandbox that is ready.
    pub(crate) async fn sandbox(&self, id: &str) -> Sandbox {
        self.sandbox_of(CreateSandbox::new(id)).await
    }

    /// A sandbox as asked for, ready.
    pub(crate) async fn sandbox_of(&self, request: CreateSandbox) -> Sandbox {
        let made = self.client.create_ready(&request, READY).await.expect("a sandbox");
        Sandbox::new(made.sandbox_id.into_owned(), made.sandbox_url.into_owned())
    }

    /// What the server says of a sandbox.
    pub(crate) async fn seen(&self, id: &str) -> stockade_api::Sandbox<'static> {
        self.client.get(id).await.expect("an answer of the server").expect("the sandbox")
    }

    /// Where the server listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether sandboxes can have a way out.
    pub(crate) fn can_open_network(&self) -> bool {
        self.run_by == RunBy::Root
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.len().saturating_sub(4000);
        log.get(from..).unwrap_or(&log).to_owned()
    }

    async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let down = program(self.run_by)
            .args(["down", "--purge", "--yes", "--state-dir"])
            .arg(&self.state)
            .output()
            .await;
        let down = down.unwrap();
        assert!(ended.is_ok(), "the server did not end:\n{}", self.log());
        assert!(down.status.success(), "down: {}", String::from_utf8_lossy(&down.stderr));
    }
}

/// The program under test: `STOCKADE_BIN`, else the one beside this test's.
pub(crate) fn program(run_by: RunBy) -> Command {
    let binary = std::env::var_os("STOCKADE_BIN").map_or_else(
        || {
            let own = std::env::current_exe().unwrap();
            own.parent().and_then(Path::parent).unwrap().join("stockade")
        },
        PathBuf::from,
    );
    let mut command = if run_by == RunBy::Ordinary && rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        let user = ORDINARY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn open_to_all(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode).unwrap();
}

/// Ports of one server: its own, and as many after it as it may have sandboxes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// The server's own.
    pub(crate) api: u16,
    /// How many sandboxes there may be.
    pub(crate) sandboxes: u16,
}

impl Ports {
    /// Ports that nobody has now.
    pub(crate) fn free(sandboxes: u16) -> Self {
        let start = u16::try_from(std::process::id() % 150).unwrap_or_default();
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let mut starts = (0..150).map(|step| 20_000 + (start + step) % 150 * 50);
        let api = starts.find(|api| (*api..=api + sandboxes).all(free));
        Self { api: api.expect("free ports in a row from 20000 on"), sandboxes }
    }

    /// Tells the server of them.
    pub(crate) fn give(self, command: &mut Command) {
        command.env("SANDBOX_PORT_RANGE", format!("{}-{}", self.api + 1, self.api + self.sandboxes));
        command.env("SANDBOX_MAX", self.sandboxes.to_string());
    }
}
