//! Everything that one command has started, found and ended.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use super::tree::{self, Stat};

/// How long ending may take. What is left then belongs to another user, or hangs in the kernel and ends when it wakes.
const DEADLINE: Duration = Duration::from_secs(3);
/// The longest wait between two looks, when nothing that was killed is seen to end.
const LOOK: Duration = Duration::from_millis(20);

/// The processes below one keeper: a command and all it has started, wherever their parents are by now.
///
/// All calls but [`Self::is_gone`] read `/proc`: make them on the pool.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    keeper: Pid,
    gone: watch::Receiver<bool>,
}

impl Family {
    pub(super) fn new(keeper: Pid, gone: watch::Receiver<bool>) -> Self {
        Self { keeper, gone }
    }

    /// The process that all of them are below.
    pub(crate) fn keeper(&self) -> i32 {
        self.keeper.as_raw_nonzero().get()
    }

    /// Nothing of it runs any more.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits until nothing of it runs any more.
    pub(crate) async fn wait_until_gone(&self) {
        // The sender goes only with the agent.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    /// Those that have not ended.
    pub(crate) fn members(&self) -> Vec<Stat> {
        if self.is_gone() {
            return Vec::new();
        }
        let members = tree::below(tree::all(), self.keeper());
        // Otherwise the keeper's number may have been another's when it was looked.
        if self.is_gone() { Vec::new() } else { members }
    }

    /// Sends `signal` to each; how many there were.
    pub(crate) fn signal(&self, signal: Signal) -> usize {
        self.members().iter().filter(|member| send(member, signal).is_ok()).count()
    }

    /// Ends all of it; how many could not be ended.
    pub(crate) fn end(&self) -> usize {
        self.end_those(<[Stat]>::to_vec)
    }

    /// Ends those that `choose` picks of the members, again and again until it picks none; how many could not be ended.
    ///
    /// They are stopped first, so that none is made while others end, and killed once no new one is found. Whatever
    /// wakes one of them again is found in the next round.
    pub(crate) fn end_those(&self, mut choose: impl FnMut(&[Stat]) -> Vec<Stat>) -> usize {
        let began = Instant::now();
        // A keeper that somebody has stopped would leave zombies.
        if !self.is_gone() {
            let _ = kill_process(self.keeper, Signal::CONT);
        }
        let (mut stopped, mut refused) = (HashSet::new(), HashSet::new());
        let mut quiet = false;
        loop {
            let mut chosen = choose(&self.members());
            chosen.retain(|member| !refused.contains(&member.identity()));
            if chosen.is_empty() {
                // Twice: a look takes time, and who moves to another parent meanwhile may not be seen.
                if quiet {
                    return refused.len();
                }
                quiet = true;
                continue;
            }
            quiet = false;
            let is_new = |member: &&Stat| !stopped.contains(&member.identity());
            let new: Vec<Stat> = chosen.iter().filter(is_new).copied().collect();
            let late = began.elapsed() > DEADLINE;
            for member in &new {
                if matches!(send(member, Signal::STOP), Err(Errno::PERM)) {
                    refused.insert(member.identity());
                }
                stopped.insert(member.identity());
            }
            if new.is_empty() || late {
                kill_and_wait(&chosen);
            }
            if late {
                return refused.len() + choose(&self.members()).len();
            }
        }
    }
}

/// Kills them, and waits a moment for the first to end.
fn kill_and_wait(members: &[Stat]) {
    let mut handles = Vec::new();
    for member in members {
        if let Ok(Some(handle)) = send(member, Signal::KILL) {
            handles.push(handle);
        }
    }
    let mut ends: Vec<_> = handles.iter().take(1).map(|end| PollFd::new(end, PollFlags::IN)).collect();
    let wait = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    // Without handles this only waits.
    let _ = poll(&mut ends, Some(&wait));
}

/// Kills the process that was seen.
pub(super) fn kill(member: &Stat) {
    // It may have ended, or be another user's.
    let _ = send(member, Signal::KILL);
}

/// Sends a signal to the process that was seen, and never to another that has its number by now. A handle of it where
/// the kernel has such.
fn send(member: &Stat, signal: Signal) -> Result<Option<OwnedFd>, Errno> {
    let pid = Pid::from_raw(member.pid).ok_or(Errno::SRCH)?;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Some(handle),
        Err(Errno::SRCH) => return Err(Errno::SRCH),
        // No such call, or no descriptor left.
        Err(_) => None,
    };
    if tree::stat(member.pid).is_none_or(|now| now.identity() != member.identity()) {
        return Err(Errno::SRCH);
    }
    match &handle {
        Some(handle) => pidfd_send_signal(handle, signal)?,
        None => kill_process(pid, signal)?,
    }
    Ok(handle)
}
