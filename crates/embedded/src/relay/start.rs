//! Finding the relay of a state directory, or starting it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;

use super::RelayError;
use super::place::Place;
use crate::role::RELAY;

/// How long a relay may take until it can be connected to.
pub(super) const START_TIME: Duration = Duration::from_secs(10);
/// How long a request waits for its sandbox, unless told otherwise: as long as a slow start takes, and less
/// than callers wait for an answer.
const WAIT: Duration = Duration::from_secs(30);
/// The most that is read of why it did not start.
const MAX_REASON: u64 = 4096;

/// How the relay is found and started.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The state directory: ours, and closed to others (0700).
    pub directory: PathBuf,
    /// What is started: ourselves, unless a test says otherwise.
    pub executable: PathBuf,
    /// Directories of control groups the relay moves itself to.
    pub cgroups: Vec<PathBuf>,
    /// Whether it listens on ports that need a right to (below 1024 usually): for sandboxes, or to serve names.
    pub low_ports: bool,
    /// How long a request waits for a sandbox that is not attached before it is answered with 503.
    pub wait: Duration,
}

impl RelayOptions {
    /// For a state directory, with nothing special.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            executable: PathBuf::from("/proc/self/exe"),
            cgroups: Vec::new(),
            low_ports: false,
            wait: WAIT,
        }
    }
}

/// A socket to the relay, and its process.
pub(super) async fn connect_or_start(options: &RelayOptions) -> Result<(OwnedFd, i32), RelayError> {
    let (answer, connected) = oneshot::channel();
    let options = options.clone();
    // A thread of its own, not of the runtime: it waits for locks that others hold, and nobody waits for it
    // when it does so too long.
    std::thread::Builder::new()
        .name("relay-start".to_owned())
        .spawn(move || answer.send(connect_or_start_now(&options)))
        .map_err(RelayError::Socket)?;
    match tokio::time::timeout(START_TIME, connected).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) => Err(RelayError::Ended),
        Err(_) => Err(RelayError::Silent { pid: None, seconds: START_TIME.as_secs() }),
    }
}

fn connect_or_start_now(options: &RelayOptions) -> Result<(OwnedFd, i32), RelayError> {
    let place = Place::open(&options.directory)?;
    if let Some(connected) = place.connect()? {
        return Ok(connected);
    }
    // Whoever started one meanwhile has let go of the lock only when it can be connected to.
    let lock = place.lock_start().map_err(RelayError::Socket)?;
    if let Some(connected) = place.connect()? {
        return Ok(connected);
    }
    place.wait_for_end().map_err(RelayError::Socket)?;
    start(options, &place, lock)?;
    place.connect()?.ok_or(RelayError::Ended)
}

/// Starts the process and waits until it can be connected to. The lock goes along: should we be killed now,
/// nobody else starts one before ours is there.
fn start(options: &RelayOptions, place: &Place, lock: OwnedFd) -> Result<(), RelayError> {
    let spawn_error = |source| RelayError::Spawn { executable: options.executable.clone(), source };
    let log = place.log().map_err(spawn_error)?;
    let (mut ready, report) = io::pipe().map_err(spawn_error)?;
    let mut command = Command::new(&options.executable);
    command.arg0(RELAY).arg(&options.directory);
    command.arg("--wait-ms").arg(options.wait.as_millis().to_string());
    if options.low_ports {
        command.arg("--low-ports");
    }
    for cgroup in &options.cgroups {
        command.arg("--cgroup").arg(cgroup);
    }
    command.env_clear().current_dir("/");
    command.stdin(Stdio::from(lock)).stdout(Stdio::from(report)).stderr(Stdio::from(File::from(log)));
    let mut child = command.spawn().map_err(spawn_error)?;
    // It holds the other end of the pipe too.
    drop(command);
    child.wait().map_err(spawn_error)?;
    let mut said = String::new();
    (&mut ready).take(MAX_REASON).read_to_string(&mut said).map_err(spawn_error)?;
    match said.strip_prefix(READY) {
        Some(_) => Ok(()),
        None if said.is_empty() => Err(RelayError::Start("it ended at once".to_owned())),
        None => Err(RelayError::Start(said.trim_end().to_owned())),
    }
}

/// What a relay says on its standard output when it can be connected to; anything else says why it ends.
pub(super) const READY: &str = "ready";
