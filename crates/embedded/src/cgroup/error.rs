//! What can go wrong with control groups.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A control group that could not be made, changed or removed.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The directory of a group could not be made.
    #[error("cannot make the control group {}", path.display())]
    Make {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A setting could not be written.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A value could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A group could not be removed within the time given.
    #[error("cannot remove the control group {} (processes left: {processes:?})", path.display())]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// What is still in it.
        processes: Vec<i32>,
        /// What the kernel said.
        source: io::Error,
    },
    /// A group of that id has processes: a sandbox of that id runs.
    #[error("the control group of sandbox {id:?} has {processes} processes already; adopt it or end them")]
    Occupied {
        /// The sandbox.
        id: String,
        /// How many.
        processes: usize,
    },
    /// A name that cannot be a group's.
    #[error("{name:?} cannot name a control group; use letters, digits, hyphens and dots")]
    Name {
        /// The name.
        name: String,
    },
    /// Processes did not stop, or did not end, in time.
    #[error("the processes of sandbox {id:?} did not {what} within {waited:?}")]
    Late {
        /// The sandbox.
        id: String,
        /// What they were told to do.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// This machine has no control groups for us.
    #[error("sandboxes cannot be {what} here: {reason}")]
    Unavailable {
        /// What was asked for.
        what: &'static str,
        /// Why there are none.
        reason: String,
    },
}

impl CgroupError {
    /// Whether the file or group is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Write { source, .. } | Self::Read { source, .. } | Self::Open { source, .. }
            if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the kernel found a value wrong.
    pub(super) fn is_invalid(&self) -> bool {
        let codes = [libc::EINVAL, libc::EBUSY];
        matches!(self, Self::Write { source, .. } if source.raw_os_error().is_some_and(|c| codes.contains(&c)))
    }
}
