//! A process that has done the first half of a launch and waits for what it is to be, as the server sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::failure::{LaunchError, Unsupported};
use super::handle::Process;
use super::spec::{LaunchSpec, executes_itself};
use super::step::{SetupStep, split};
use super::wire::{self, Became, Become, Exit, MOST_BYTES};
use super::{LAUNCH_DEADLINE, plan};
use crate::facts::MachineFacts;
use crate::rootfs::HostSystem;

/// Descriptors the first half of a launch needs.
#[derive(Debug)]
pub struct StandbyFds {
    /// Its control groups: the process writes `0` to each.
    pub join: Vec<OwnedFd>,
    /// Control groups of its commands: handed to the agent.
    pub commands: Vec<OwnedFd>,
}

/// A sandbox whose agent is about to start.
#[derive(Debug)]
pub struct Launched {
    /// Its first process.
    pub pid: i32,
    /// When that started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The process, whatever its number is used for later.
    pub pidfd: OwnedFd,
    /// One byte when the agent listens; end of file without one when it has died.
    pub ready: OwnedFd,
    /// What is not as it was asked for, in sentences.
    pub messages: Vec<String>,
    /// How it ended, once it has. Closed without a word when the launcher ends before that: the sandbox lives on.
    pub exit: oneshot::Receiver<Exit>,
}

/// The first process of a sandbox to come. It ends when this is dropped.
#[derive(Debug)]
pub struct Standby {
    process: Process,
    channel: AsyncFd<OwnedFd>,
    done: Vec<SetupStep>,
    planner: Arc<Planner>,
}

/// What a plan depends on, besides the specification.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) facts: MachineFacts,
    pub(super) system: HostSystem,
    /// The agent is not our own program.
    pub(super) other_agent: bool,
}

impl Planner {
    /// Both halves.
    pub(super) fn plan(&self, spec: &LaunchSpec) -> Result<(Vec<SetupStep>, Vec<SetupStep>), Unsupported> {
        plan(spec, &self.facts, &self.system).map(split)
    }
}

impl Standby {
    #[allow(unsafe_code)]
    pub(super) fn new(
        process: Process,
        channel: OwnedFd,
        done: Vec<SetupStep>,
        planner: Arc<Planner>,
    ) -> Result<Self, LaunchError> {
        rustix::io::ioctl_fionbio(&channel, true).map_err(|errno| LaunchError::Message(errno.into()))?;
        // SAFETY: the descriptor is owned by what registers it, and closed only after it is registered no more.
        let channel = unsafe { AsyncFd::register(channel) };
        Ok(Self {
            process,
            channel: channel.map_err(|error| LaunchError::Message(error.into()))?,
            done,
            planner,
        })
    }

    /// Whether a sandbox of this specification begins with just what was done.
    #[must_use]
    pub fn is_for(&self, spec: &LaunchSpec) -> bool {
        self.planner.plan(spec).is_ok_and(|(first, _)| first == self.done)
    }

    /// Does the second half of a launch, in this network namespace. When this is dropped before it is done, the process is killed.
    ///
    /// # Errors
    /// A step failed, or the process has ended; nothing is left then.
    pub async fn become_sandbox(
        self,
        spec: &LaunchSpec,
        netns: OwnedFd,
        log: OwnedFd,
    ) -> Result<Launched, LaunchError> {
        let Self { process, channel, planner, .. } = self;
        let (_, steps) = planner.plan(spec)?;
        let execute = planner.other_agent || executes_itself(spec.users);
        let asked = Become { users: spec.users, execute, steps };
        let bytes = serde_json::to_vec(&asked).map_err(|error| LaunchError::Message(error.into()))?;
        if bytes.len() > MOST_BYTES {
            return Err(LaunchError::TooLarge { bytes: bytes.len(), most: MOST_BYTES });
        }
        let (ready, tell_ready) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| LaunchError::Message(errno.into()))?;
        let unfinished = Unfinished(Some(process));
        let exchange = async {
            let fds = [netns.as_fd(), log.as_fd(), tell_ready.as_fd()];
            let send = |socket: &OwnedFd| wire::send_bytes(socket.as_fd(), &bytes, &fds).map_err(Into::into);
            channel.async_io(Interest::WRITABLE, send).await?;
            let mut buffer = vec![0; MOST_BYTES];
            let receive =
                |socket: &OwnedFd| wire::receive::<Became>(socket.as_fd(), &mut buffer).map_err(Into::into);
            channel.async_io(Interest::READABLE, receive).await
        };
        let answer = match tokio::time::timeout(LAUNCH_DEADLINE, exchange).await {
            Ok(answer) => answer,
            Err(_) => return Err(LaunchError::Late { waited: LAUNCH_DEADLINE }),
        };
        match answer {
            Ok(Some((Became::Sandbox { messages }, _))) => Ok(unfinished.launched(ready, messages)),
            Ok(Some((Became::Failed(failure), _))) => Err(LaunchError::Step(failure)),
            Ok(None) => Err(LaunchError::Died),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::PIPE | Errno::CONNRESET) => Err(LaunchError::Died),
                _ => Err(LaunchError::Message(error)),
            },
        }
    }
}

/// Kills the process unless it became a sandbox.
struct Unfinished(Option<Process>);

impl Unfinished {
    fn launched(mut self, ready: OwnedFd, messages: Vec<String>) -> Launched {
        match self.0.take() {
            Some(Process { pid, start_time, pidfd, exit }) => {
                Launched { pid, start_time, pidfd, ready, messages, exit }
            }
            None => unreachable!("it is taken once"),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
        }
    }
}
