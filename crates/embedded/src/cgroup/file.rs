//! Reading and writing the files by which the kernel shows a control group.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::CgroupError;

/// Writes `value` in one go.
pub(super) fn write(group: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = group.join(file);
    let result = open(&path, OFlags::WRONLY).and_then(|fd| Ok(rustix::io::write(&fd, value.as_bytes())?));
    result.map(drop).map_err(|source| CgroupError::Write { path, value: value.to_owned(), source })
}

/// Writes `value` if the kernel has the file. Files that only some kernels have are written this way.
pub(super) fn write_if_there(group: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    match write(group, file, value) {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

pub(super) fn read(group: &Path, file: &str) -> Result<String, CgroupError> {
    let path = group.join(file);
    std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

/// A file that holds one number.
pub(super) fn number(group: &Path, file: &str) -> Option<u64> {
    read(group, file).ok()?.trim().parse().ok()
}

/// The number after `key` in a file of lines `key number`.
pub(super) fn keyed(group: &Path, file: &str, key: &str) -> Option<u64> {
    let text = read(group, file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The processes of a group itself; none when it is gone.
pub(super) fn processes(group: &Path) -> Vec<i32> {
    let text = read(group, "cgroup.procs").unwrap_or_default();
    // A process outside our own view is shown as 0.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Opens a file of a group to write to, to be handed to whoever joins the group.
pub(super) fn writer(group: &Path, file: &str) -> Result<OwnedFd, CgroupError> {
    let path = group.join(file);
    open(&path, OFlags::WRONLY).map_err(|source| CgroupError::Open { path, source })
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Makes a group. One that is there already is fine.
pub(super) fn make(group: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path: group.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes a group, waiting until `deadline` for processes that are on their way out.
pub(super) fn remove(group: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Pause::until(deadline);
    loop {
        match rustix::fs::rmdir(group) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if pause.next() => {}
            Err(error) => {
                let (path, processes) = (group.to_owned(), processes(group));
                return Err(CgroupError::Remove { path, processes, source: error.into() });
            }
        }
    }
}

/// The names of groups in a group.
pub(super) fn children(group: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(group) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Waiting for what the kernel tells nobody of: short at first, longer later, never past a deadline.
pub(super) struct Pause {
    deadline: Instant,
    length: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_micros(200);
    const LONGEST: Duration = Duration::from_millis(20);

    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, length: Self::FIRST }
    }

    /// Waits; `false` when the deadline has passed.
    pub(super) fn next(&mut self) -> bool {
        self.wait_for(&mut [])
    }

    /// As [`Self::next`], but wakes up when the kernel says that a file of version 2 has changed.
    pub(super) fn next_change(&mut self, events: &OwnedFd) -> bool {
        self.wait_for(&mut [PollFd::new(events, PollFlags::PRI)])
    }

    fn wait_for(&mut self, fds: &mut [PollFd<'_>]) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let time = Timespec::try_from(self.length.min(left)).ok();
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(fds, time.as_ref());
        self.length = (self.length * 2).min(Self::LONGEST);
        true
    }
}

/// Opens the file that tells of changes.
pub(super) fn events(group: &Path) -> Result<OwnedFd, CgroupError> {
    let path: PathBuf = group.join("cgroup.events");
    open(&path, OFlags::RDONLY).map_err(|source| CgroupError::Open { path, source })
}
