//! Limits of single processes. They are the second line where there are control groups, and the only one where
//! there are none.

use std::io;

use rustix::process::{Resource, Rlimit};

use crate::facts::MachineFacts;

/// Open files of a process, softly: more slows down programs that close all there might be.
const OPEN_FILES: u64 = 1024;
/// Open files of a process at most, as with Docker under systemd.
const MOST_OPEN_FILES: u64 = 524_288;
/// Memory a process may keep from being swapped out; the kernel's own default.
const LOCKED_MEMORY: u64 = 8 * 1024 * 1024;
/// Signals waiting for all processes of a user.
const PENDING_SIGNALS: u64 = 8192;
/// Bytes in POSIX message queues; the kernel's own default.
const MESSAGE_QUEUES: u64 = 819_200;

/// The limits of a sandbox's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    limits: [(Resource, u64, u64); 8],
}

/// What every process of a sandbox may use, by what limits the sandbox as a whole.
///
/// `processes` counts all processes of the user, so it is set only where the user is the sandbox's own.
#[must_use]
pub fn limits(facts: &MachineFacts, processes: Option<u32>) -> Limits {
    let own_user = facts.privileged;
    let most = if own_user { processes.map_or(u64::MAX, u64::from) } else { u64::MAX };
    Limits {
        limits: [
            // A core file would be written by the kernel, with its rights, where the machine's settings say.
            (Resource::Core, 0, 0),
            (Resource::Nofile, OPEN_FILES, MOST_OPEN_FILES),
            (Resource::Nproc, most, most),
            (Resource::Memlock, LOCKED_MEMORY, LOCKED_MEMORY),
            (Resource::Sigpending, PENDING_SIGNALS, PENDING_SIGNALS),
            (Resource::Msgqueue, MESSAGE_QUEUES, MESSAGE_QUEUES),
            // No process may be more urgent than others.
            (Resource::Nice, 0, 0),
            (Resource::Rtprio, 0, 0),
        ],
    }
}

impl Limits {
    /// Applies the limits to this process. What is lower already stays. To be called between fork and exec.
    /// Allocates nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&self) -> io::Result<()> {
        for (resource, soft, hard) in self.limits {
            let now = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let hard = hard.min(now);
            let value = |limit: u64| (limit != u64::MAX).then_some(limit);
            let limit = Rlimit { current: value(soft.min(hard)), maximum: value(hard) };
            rustix::process::setrlimit(resource, limit)?;
        }
        Ok(())
    }
}
