//! The server's end of the launcher.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, oneshot, watch};

use super::LAUNCH_DEADLINE;
use super::failure::{LaunchError, StepFailure};
use super::process::NOTICE;
use super::spec::LaunchSpec;
use super::standby::{Launched, Planner, Standby, StandbyFds};
use super::wire::{self, Answer, Exit, MOST_BYTES, MOST_FDS, Request};
use crate::facts::MachineFacts;
use crate::role;
use crate::rootfs::HostSystem;

/// Sandboxes that are set up at once. More would only wait for each other in the kernel.
const AT_ONCE: usize = 32;
/// How long the launcher may take to prepare what sandboxes share: it reads the machine's directories.
const PREPARE_DEADLINE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// What a launcher is started with.
#[derive(Debug, Clone)]
pub struct LauncherOptions {
    /// What this machine can give.
    pub facts: MachineFacts,
    /// What it shows of itself.
    pub system: HostSystem,
    /// An empty directory of the server's own. Nothing is written to it; the launcher mounts on it what only it and
    /// its children see.
    pub stage: PathBuf,
    /// Directories no sandbox may see even if they lie in the machine's system: the state directory, and where
    /// threads' directories are.
    pub hidden: Vec<PathBuf>,
    /// The program to execute as the agent; `None` takes this one, in its role as an agent.
    pub agent: Option<PathBuf>,
}

/// Descriptors a launch needs.
#[derive(Debug)]
pub struct LaunchFds {
    /// The sandbox's network namespace.
    pub netns: OwnedFd,
    /// Where its first process writes what it has to say.
    pub log: OwnedFd,
    /// Its control groups: it writes `0` to each.
    pub join: Vec<OwnedFd>,
    /// Control groups of its commands: handed to the agent.
    pub commands: Vec<OwnedFd>,
}

/// The process that makes sandboxes, as the server sees it. Dropping it ends the launcher; sandboxes stay.
#[derive(Debug)]
pub struct Launcher {
    shared: Arc<Shared>,
    planner: Arc<Planner>,
    ended: watch::Receiver<bool>,
    pid: u32,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    numbers: AtomicU64,
    permits: Semaphore,
    /// Bounded by the permits.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Process, StepFailure>>>>,
}

/// The first process of a sandbox, which has done the first half of a launch.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub(super) start_time: u64,
    /// The process, whatever its number is used for later.
    pub(super) pidfd: OwnedFd,
    pub(super) exit: oneshot::Receiver<Exit>,
}

impl Launcher {
    /// Starts the process and waits until it is prepared. To be called within a runtime.
    ///
    /// # Errors
    /// The process cannot be started, or cannot prepare what sandboxes share.
    #[allow(unsafe_code)]
    pub fn start(options: LauncherOptions) -> Result<Self, LaunchError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source: std::io::Error| LaunchError::Start { what, source }
        };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed("a pair of sockets")(errno.into()))?;
        let mut process = Command::new("/proc/self/exe");
        process.arg0(role::LAUNCHER).env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let process = process.spawn().map_err(failed("our own executable, in its role as a launcher"))?;
        let pid = process.id();
        let mut process = Reaped(Some(process));
        prepare(&ours, &options)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|errno| failed("its socket")(errno.into()))?;
        // SAFETY: the descriptor is owned by what registers it, and closed only after it is registered no more.
        let registered = unsafe { AsyncFd::register(ours) };
        let socket = registered.map_err(|error| failed("its socket")(error.into()))?;
        let shared = Arc::new(Shared {
            socket,
            numbers: AtomicU64::new(0),
            permits: Semaphore::new(AT_ONCE),
            waiting: Mutex::new(HashMap::new()),
        });
        let (tell, ended) = watch::channel(false);
        let reader = Arc::clone(&shared);
        tokio::spawn(async move {
            read(&reader).await;
            reader.permits.close();
            reader.waiting.lock().clear();
            // The process ends with the connection.
            let _ = tokio::task::spawn_blocking(move || process.reap()).await;
            let _ = tell.send(true);
        });
        let planner =
            Planner { other_agent: options.agent.is_some(), facts: options.facts, system: options.system };
        Ok(Self { shared, planner: Arc::new(planner), ended, pid })
    }

    /// Makes a sandbox. When this is dropped before it is done, what comes of it is killed.
    ///
    /// # Errors
    /// The machine cannot, a step failed, or the launcher is gone; nothing is left then.
    pub async fn launch(&self, spec: &LaunchSpec, fds: LaunchFds) -> Result<Launched, LaunchError> {
        let first = StandbyFds { join: fds.join, commands: fds.commands };
        self.stand_by(spec, first).await?.become_sandbox(spec, fds.netns, fds.log).await
    }

    /// Does the first half of a launch: what is the same for many sandboxes. Of the specification only that counts;
    /// the second half may be of another ([`Standby::is_for`]). When this is dropped before it is done, what comes of
    /// it ends.
    ///
    /// # Errors
    /// As those of [`Launcher::launch`].
    pub async fn stand_by(&self, spec: &LaunchSpec, fds: StandbyFds) -> Result<Standby, LaunchError> {
        let (steps, _) = self.planner.plan(spec)?;
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| LaunchError::Message(errno.into()))?;
        let (join, commands) = (fds.join.len(), fds.commands.len());
        let request = Request::Launch { number, steps: steps.clone(), join, commands };
        let bytes = serde_json::to_vec(&request).map_err(|error| LaunchError::Message(error.into()))?;
        let _permit = self.shared.permits.acquire().await.map_err(|_| LaunchError::Ended)?;
        let (tell, told) = oneshot::channel();
        self.shared.waiting.lock().insert(number, tell);
        let _forgotten = Forget { shared: &self.shared, number };
        self.shared.send(&bytes, &fds, &theirs).await?;
        drop((fds, theirs));
        let process = match tokio::time::timeout(LAUNCH_DEADLINE + NOTICE, told).await {
            Ok(Ok(Ok(process))) => process,
            Ok(Ok(Err(failure))) => return Err(LaunchError::Step(failure)),
            Ok(Err(_)) => return Err(LaunchError::Ended),
            Err(_) => return Err(LaunchError::Late { waited: LAUNCH_DEADLINE + NOTICE }),
        };
        Standby::new(process, ours, steps, Arc::clone(&self.planner))
    }

    /// The launcher's process, which may have ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the launcher has ended, and is no process any more.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error says that the task is gone, with the runtime.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The launcher reads the end of the connection and ends.
        let _ = rustix::net::shutdown(self.shared.socket.get_ref(), rustix::net::Shutdown::Both);
    }
}

impl Shared {
    async fn send(&self, bytes: &[u8], fds: &StandbyFds, channel: &OwnedFd) -> Result<(), LaunchError> {
        if bytes.len() > MOST_BYTES {
            return Err(LaunchError::TooLarge { bytes: bytes.len(), most: MOST_BYTES });
        }
        let all = std::iter::once(channel).chain(&fds.join).chain(&fds.commands);
        let all: Vec<_> = all.map(AsFd::as_fd).take(MOST_FDS + 1).collect();
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            wire::send_bytes(socket.as_fd(), bytes, &all).map_err(Into::into)
        });
        sent.await.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PIPE | Errno::CONNRESET) => LaunchError::Ended,
            _ => LaunchError::Message(error),
        })
    }
}

/// Takes the request back when nobody waits for it any more.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.number);
    }
}

/// Says what there is to prepare and waits until it is done.
fn prepare(socket: &OwnedFd, options: &LauncherOptions) -> Result<(), LaunchError> {
    let message = |errno: Errno| LaunchError::Message(errno.into());
    let request = Request::Prepare {
        facts: options.facts.clone(),
        system: options.system.clone(),
        stage: options.stage.clone(),
        hidden: options.hidden.clone(),
        agent: options.agent.clone(),
    };
    wire::send(socket.as_fd(), &request, &[]).map_err(message)?;
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut polled, Some(&PREPARE_DEADLINE))).map_err(message)? == 0 {
        let waited = Duration::from_secs(PREPARE_DEADLINE.tv_sec.unsigned_abs());
        return Err(LaunchError::Late { waited });
    }
    let mut buffer = vec![0; MOST_BYTES];
    match wire::receive(socket.as_fd(), &mut buffer).map_err(message)? {
        Some((Answer::Prepared, _)) => Ok(()),
        Some((Answer::NotPrepared(failure), _)) => Err(LaunchError::Prepare(failure)),
        _ => Err(LaunchError::Ended),
    }
}

/// Hands on what the launcher says, until it ends.
async fn read(shared: &Shared) {
    let mut buffer = vec![0; MOST_BYTES];
    let mut exits: HashMap<i32, oneshot::Sender<Exit>> = HashMap::new();
    loop {
        let received = shared.socket.async_io(Interest::READABLE, |socket| {
            wire::receive(socket.as_fd(), &mut buffer).map_err(std::io::Error::from)
        });
        let (answer, fds) = match received.await {
            Ok(Some(received)) => received,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the launcher cannot be understood");
                return;
            }
        };
        match answer {
            Answer::Launched { number, pid, start_time } => {
                let Some(pidfd) = fds.into_iter().next() else { return };
                let (tell, exit) = oneshot::channel();
                exits.insert(pid, tell);
                shared.hand_on(number, Ok(Process { pid, start_time, pidfd, exit }));
            }
            Answer::Failed { number, failure } => shared.hand_on(number, Err(failure)),
            Answer::Exited { pid, exit } => {
                if let Some(tell) = exits.remove(&pid) {
                    // Who does not listen does not want to know.
                    let _ = tell.send(exit);
                }
            }
            Answer::Prepared | Answer::NotPrepared(_) => {}
        }
    }
}

impl Shared {
    /// A process nobody waits for any more is ended at once.
    fn hand_on(&self, number: u64, result: Result<Process, StepFailure>) {
        let waiting = self.waiting.lock().remove(&number);
        let unwanted = match waiting {
            Some(tell) => tell.send(result).err(),
            None => Some(result),
        };
        if let Some(Ok(process)) = unwanted {
            let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
        }
    }
}

/// The launcher's process, waited for in any case.
struct Reaped(Option<Child>);

impl Reaped {
    fn reap(&mut self) {
        if let Some(mut process) = self.0.take() {
            let _ = process.wait();
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            // It serves nobody.
            let _ = process.kill();
        }
        self.reap();
    }
}
