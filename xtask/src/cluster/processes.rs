//! Processes that outlive this one, and are ended by an identity that no other process can have.
//!
//! A process id alone is reused by the kernel. With its start time, and the boot it belongs to, it
//! is one process for good; a pidfd, opened before the comparison, closes the gap between looking
//! and killing.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// Which process, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As seen from the host's process namespace.
    pub pid: i32,
    /// In clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl Identity {
    /// The identity of a process that runs now.
    ///
    /// # Errors
    /// When there is no such process, or it has ended and only waits to be reaped.
    pub fn of(pid: i32) -> Result<Self> {
        let start_time = running_since(pid).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, start_time, boot_id: boot_id()? })
    }

    /// Whether this very process still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id) && running_since(self.pid) == Some(self.start_time)
    }

    /// Sends SIGTERM, and SIGKILL when it has not ended after `grace`.
    ///
    /// # Errors
    /// When the process cannot be signalled, or survives SIGKILL for ten seconds.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        let Some(process) = self.open()? else { return Ok(()) };
        signal(&process, Signal::TERM, self.pid)?;
        if ended_within(&process, grace)? {
            return Ok(());
        }
        self.kill()
    }

    /// Sends SIGKILL and waits until the process has ended.
    ///
    /// # Errors
    /// When the process cannot be signalled, or survives for ten seconds.
    pub fn kill(&self) -> Result<()> {
        let Some(process) = self.open()? else { return Ok(()) };
        signal(&process, Signal::KILL, self.pid)?;
        // The end of the first process of a namespace waits for all the others in it.
        anyhow::ensure!(
            ended_within(&process, Duration::from_secs(10))?,
            "process {} still runs ten seconds after SIGKILL; `cat /proc/{}/stack` tells what it waits for",
            self.pid,
            self.pid
        );
        Ok(())
    }

    /// A handle of the process, `None` when it has ended.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open process {}", self.pid)),
        };
        // Compared after opening: the descriptor now stands for whatever has this id.
        Ok(self.is_alive().then_some(process))
    }
}

fn signal(process: &OwnedFd, signal: Signal, pid: i32) -> Result<()> {
    match rustix::process::pidfd_send_signal(process, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}

/// Whether the process ends within `time`: a pidfd is readable from then on.
fn ended_within(process: &OwnedFd, time: Duration) -> Result<bool> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the time to wait does not fit")?;
        match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for a process"),
        }
    }
}

/// The start time of a process, `None` when there is none or it is a zombie.
fn running_since(pid: i32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<u64> {
    // The second field is the program's name and may hold anything, also ") R 1"; the last
    // parenthesis ends it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // State is field 3, so field 22 is 19 further on.
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
}

/// The ids of all processes that can be seen.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 9 9";

    #[test]
    fn the_start_time_is_found_behind_a_name_with_parentheses() {
        assert_eq!(parse_stat(STAT), Some(987_654));
    }

    #[test]
    fn a_zombie_is_no_running_process() {
        assert_eq!(parse_stat(&STAT.replace(") S", ") Z")), None);
    }

    #[test]
    fn a_reused_process_id_is_not_the_same_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { start_time: me.start_time + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot_id: "another".into(), ..me }.is_alive());
    }

    #[test]
    fn a_process_of_another_identity_is_left_alone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        Identity { start_time: identity.start_time + 1, ..identity.clone() }.kill().unwrap();
        assert!(identity.is_alive());
        identity.stop(Duration::from_secs(5)).unwrap();
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }
}
