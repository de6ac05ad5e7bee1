//! Limits of single processes. They are the second line where there are control groups, and the only one where
//! there are none.

use std::io;

use rustix::process::{Resource, Rlimit};

/// Open files of a process, softly: more slows down programs that close all there might be.
const OPEN_FILES: u64 = 1024;
/// Open files of a process at most. Many of them together are one number for the whole machine (`fs.file-max`).
pub(crate) const MOST_OPEN_FILES: u64 = 65_536;
/// A core file would be written by the kernel, with its rights, where the machine's settings say. With a limit of one
/// byte it writes none, and starts no program that takes it (`core_pattern` with a pipe), which it does at zero.
const CORE: u64 = 1;
/// Memory a process may keep from being swapped out; the kernel's own default.
const LOCKED_MEMORY: u64 = 8 * 1024 * 1024;
/// Signals waiting for all processes of a user.
const PENDING_SIGNALS: u64 = 8192;
/// Bytes in POSIX message queues; the kernel's own default.
const MESSAGE_QUEUES: u64 = 819_200;

/// The limits of a sandbox's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    limits: [(Resource, u64, u64); 7],
}

/// What every process of a sandbox may use.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        limits: [
            (Resource::Core, CORE, CORE),
            (Resource::Nofile, OPEN_FILES, MOST_OPEN_FILES),
            (Resource::Memlock, LOCKED_MEMORY, LOCKED_MEMORY),
            (Resource::Sigpending, PENDING_SIGNALS, PENDING_SIGNALS),
            (Resource::Msgqueue, MESSAGE_QUEUES, MESSAGE_QUEUES),
            // No process may be more urgent than others.
            (Resource::Nice, 0, 0),
            (Resource::Rtprio, 0, 0),
        ],
    }
}

/// Limits how many processes and threads there may be of this process's user in its user namespace. What the user has
/// outside of it does not count, on kernels that [count apart](crate::facts::MachineFacts::counts_processes_apart).
///
/// # Errors
/// The kernel refuses.
pub fn limit_processes(most: u32) -> io::Result<()> {
    set(Resource::Nproc, u64::from(most), u64::from(most))
}

/// What is lower already stays.
fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let hard = hard.min(now);
    let value = |limit: u64| (limit != u64::MAX).then_some(limit);
    let limit = Rlimit { current: value(soft.min(hard)), maximum: value(hard) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

impl Limits {
    /// Applies the limits to this process. What is lower already stays. To be called between fork and exec.
    /// Allocates nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&self) -> io::Result<()> {
        self.limits.iter().try_for_each(|(resource, soft, hard)| set(*resource, *soft, *hard))
    }
}
