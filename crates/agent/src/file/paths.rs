//! Paths as requests give them.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failure::{Failure, Kind};
use super::{names, owner};

/// A path from a request: absolute, as it was written (symbolic links are not resolved, because
/// answers must name files the way the caller does), free of NUL.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// The path as text for the answer.
    pub(crate) text: String,
    pub(crate) operation: &'static str,
}

impl Target {
    /// Relative paths and `~` start at `home`.
    pub(crate) fn parse(operation: &'static str, text: &str, home: &Path) -> Result<Self, Failure> {
        if text.is_empty() {
            return Err(Failure::new(operation, Path::new(""), Kind::InvalidPath, "the path is empty"));
        }
        if text.contains('\0') {
            let shown = text.replace('\0', "\u{fffd}");
            return Err(Failure::new(
                operation,
                Path::new(&shown),
                Kind::InvalidPath,
                "the path has a NUL character",
            ));
        }
        let path = match text.strip_prefix('~') {
            Some("") => home.to_path_buf(),
            Some(rest) if rest.starts_with('/') => home.join(names::meant(rest.trim_start_matches('/'))),
            _ => home.join(names::meant(text)),
        };
        let text = names::shown(&path).into_owned();
        Ok(Self { path, text, operation })
    }

    /// What the kernel refused. Where that is a matter of rights, whose the file is.
    pub(crate) fn failed(&self, error: &std::io::Error) -> Failure {
        let failure = Failure::io(self.operation, &self.path, error);
        match owner::explain(&self.path, error) {
            Some(owner) => failure.because(&owner.fact).with_hint(owner.remedy),
            None => failure,
        }
    }

    pub(crate) fn refused(&self, kind: Kind, reason: impl AsRef<str>) -> Failure {
        Failure::new(self.operation, &self.path, kind, reason)
    }

    /// Opens a regular file for reading. A pipe or device is refused without waiting for its other end.
    pub(crate) fn open(&self) -> Result<File, Failure> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
        let file = options.open(&self.path).map_err(|error| self.failed(&error))?;
        self.require_regular(&file)?;
        Ok(file)
    }

    /// Refuses what is not a regular file, by what it is.
    pub(crate) fn require_regular(&self, file: &File) -> Result<Metadata, Failure> {
        use std::os::unix::fs::FileTypeExt;
        let metadata = file.metadata().map_err(|error| self.failed(&error))?;
        let kind = metadata.file_type();
        let what = if kind.is_file() {
            return Ok(metadata);
        } else if kind.is_dir() {
            "it is a directory"
        } else if kind.is_fifo() {
            "it is a pipe"
        } else if kind.is_socket() {
            "it is a socket"
        } else {
            "it is a device"
        };
        Err(self.refused(Kind::InvalidTarget, what))
    }

    /// Refuses what is not a directory.
    pub(crate) fn require_directory(&self) -> Result<(), Failure> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| self.failed(&error))?;
        if metadata.is_dir() {
            Ok(())
        } else {
            Err(self.refused(Kind::InvalidTarget, "it is not a directory"))
        }
    }

    /// Refuses what is not a directory, and one that cannot be read: a search there would find nothing and say so.
    pub(crate) fn require_readable_directory(&self) -> Result<(), Failure> {
        self.require_directory()?;
        std::fs::read_dir(&self.path).map(drop).map_err(|error| self.failed(&error))
    }

    /// Refuses `sudo` where the agent is not root: there is nobody to ask.
    pub(crate) fn check_sudo(&self, sudo: bool) -> Result<(), Failure> {
        if sudo && !rustix::process::geteuid().is_root() {
            return Err(self.refused(
                Kind::PermissionDenied,
                "sudo was asked for, and this sandbox does not run as root",
            ));
        }
        Ok(())
    }
}
