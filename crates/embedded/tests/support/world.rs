//! Relays, network namespaces and agents for the tests of the relay.
#![allow(clippy::unwrap_used, reason = "a test fails by panics")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stockade_core::egress::NetworkMode;
use stockade_core::id::SandboxId;
use stockade_embedded::network::{Network, NetworkOptions, ResolvedPolicy};
use stockade_embedded::relay::{Relay, RelayEvent, RelayOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Long enough for anything that happens at all.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Where agents listen in their own networks.
pub(crate) const AGENT_PORT: u16 = 8080;

/// A state directory with a relay, which ends with it.
pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) events: Receiver<RelayEvent>,
    pub(crate) options: RelayOptions,
    network: Network,
    directory: Option<TempDir>,
    kept: bool,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut RelayOptions)) -> Self {
        let closed = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
        let mut options = RelayOptions::new(directory.path());
        options.executable = roles();
        change(&mut options);
        let mut world = Self::at(options).await;
        world.directory = Some(directory);
        world
    }

    /// In a state directory that stays.
    pub(crate) async fn at(options: RelayOptions) -> Self {
        let (relay, events) = Relay::connect_or_start(options.clone()).await.unwrap();
        let machine = NetworkOptions {
            machine: "test".to_owned(),
            subnet: None,
            default_mode: Some(NetworkMode::Isolated),
            ready: 1,
        };
        let network = Network::start(machine).await.unwrap();
        Self { relay, events, options, network, directory: None, kept: false }
    }

    /// Leaves the relay to the next server.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Opens a port for a sandbox.
    pub(crate) async fn listen(&self, name: &str) -> (SandboxId, SocketAddr) {
        let id = SandboxId::new(name).unwrap();
        let address = free_address();
        self.relay.listen(&id, address).await.unwrap();
        (id, address)
    }

    /// A network namespace as sandboxes have it.
    pub(crate) async fn namespace(&self) -> OwnedFd {
        self.network.prepare(0, &ResolvedPolicy::Isolated).await.unwrap().netns
    }

    /// A sandbox whose agent sends everything back.
    pub(crate) async fn echoing(&self, name: &str) -> (SandboxId, SocketAddr) {
        let (id, address) = self.listen(name).await;
        let namespace = self.namespace().await;
        tokio::spawn(echo(agent(&namespace)));
        self.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
        (id, address)
    }

    /// The next thing the relay says by itself.
    pub(crate) async fn event(&mut self) -> RelayEvent {
        timeout(SOON, self.events.recv()).await.unwrap().unwrap()
    }

    /// The server ends and another one comes.
    pub(crate) async fn new_server(&mut self) {
        let (relay, events) = Relay::connect_or_start(self.options.clone()).await.unwrap();
        self.relay = relay;
        self.events = events;
    }

    pub(crate) async fn listed(&self, id: &SandboxId) -> stockade_embedded::relay::Listed {
        let all = self.relay.list().await.unwrap();
        all.into_iter().find(|listed| listed.id == id.as_str()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.kept
            && let Ok(Some(pid)) = stockade_embedded::relay::find(&self.options.directory)
        {
            kill(pid);
        }
    }
}

/// The executable whose roles are tested.
pub(crate) fn roles() -> PathBuf {
    // Tests that run as another user have a copy that user may execute.
    std::env::var_os("EMBEDDED_ROLES").unwrap_or_else(|| env!("CARGO_BIN_EXE_embedded-roles").into()).into()
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// An address of this test process's own, outside the ports that the kernel gives to outgoing connections. None is
/// listened on for a moment to see whether it is free: a process that is just being started would have that socket too.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(5_000);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, high, low, 1], NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Does something in a namespace, on a thread that ends with it.
pub(crate) fn inside<T: Send>(namespace: &OwnedFd, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// Listens where agents do.
pub(crate) fn agent(namespace: &OwnedFd) -> TcpListener {
    let listener = inside(namespace, || StdListener::bind(("127.0.0.1", AGENT_PORT)).unwrap());
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// Sends back what comes, and ends when the caller does.
pub(crate) async fn echo(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

/// Connects; the port has to accept.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    timeout(SOON, TcpStream::connect(address)).await.unwrap().unwrap()
}

/// Sends a text and reads as much back.
pub(crate) async fn says(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();
    back
}

/// Everything until the end.
pub(crate) async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.unwrap()?;
    Ok(all)
}

/// Memory of a process that is its own, in KiB: what files hold is shared with the server.
pub(crate) fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
