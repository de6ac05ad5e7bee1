//! What must outlive the server, as files.
//!
//! ```text
//! DIR/                 0700
//!   lock               held by the one server there is
//!   machine.json       who we are: the id that reconciliation names
//!   sandboxes/ID/      record.json, log, log.1, log.previous, files/
//!                      record.deleting in place of record.json: it is on its way out
//!   standby/NAME/      files of a sandbox to come, which has no id yet
//!   trash/             what is being removed
//!   stage/             what all sandboxes share; most often empty, for the launcher mounts there what it alone sees
//!   unreadable/        records nobody could read, kept for a person to look at
//! ```
//!
//! Writes replace a file as a whole, so that a server killed at any instant leaves the old one or the new one.
//! They are not forced to the disk: after a loss of power the last seconds may be missing, and a sandbox
//! made in them with them.

mod error;
mod file;
mod foreseen;
mod lock;
mod machine;
pub(crate) mod record;
mod removal;
pub(crate) mod trash;
pub(crate) mod usage;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use stockade_core::SandboxId;

pub use error::StateError;
pub(crate) use foreseen::check_end;
pub(crate) use lock::Lock;
pub(crate) use machine::Machine;
use record::{Phase, Record};

/// The state directory, opened by the one server that may change it.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    machine: Machine,
    _lock: Lock,
}

/// One directory of [`StateDir::read`].
#[derive(Debug)]
pub(crate) enum Stored {
    /// A sandbox.
    Sandbox(Box<Record>),
    /// A directory without a record: somebody died while making or removing it.
    Half(SandboxId),
}

impl StateDir {
    /// Makes what is missing, and takes the lock.
    pub(crate) fn open(root: &Path) -> Result<Self, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { doing: "make", path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(at(root))?;
        // Bound as it is: a relative path would change its meaning with the working directory.
        let root = fs::canonicalize(root).map_err(at(root))?;
        check_private(&root)?;
        let lock = Lock::take(&root)?;
        for name in ["sandboxes", "standby", "trash", "unreadable", "stage"] {
            let path = root.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&path)(error)),
                _ => {}
            }
        }
        let machine = Machine::load(&root)?;
        Ok(Self { root, machine, _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where everything of one sandbox lies.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        sandbox_in(&self.root, id)
    }

    /// Where what the sandbox writes outside its mounts lies.
    pub(crate) fn files(&self, id: &SandboxId) -> PathBuf {
        files_in(&self.root, id)
    }

    /// Makes that directory, unless an earlier start did.
    pub(crate) fn make_files(&self, id: &SandboxId) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.files(id)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Where the files of a sandbox to come lie.
    pub(crate) fn standby(&self, name: &str) -> PathBuf {
        self.root.join("standby").join(name)
    }

    pub(crate) fn make_standby(&self, name: &str) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(self.standby(name))
    }

    /// Makes the files of a sandbox to come those of a sandbox that has none yet.
    pub(crate) fn take_standby(&self, name: &str, id: &SandboxId) -> io::Result<()> {
        fs::rename(self.standby(name), self.files(id))
    }

    /// Moves the files of a sandbox to come to the trash.
    pub(crate) fn discard_standby(&self, name: &str) -> Result<(), StateError> {
        self.to_trash(&self.standby(name))
    }

    /// Removes the files of a sandbox to come where they are. Nobody has written there: there are a few directories.
    pub(crate) fn remove_standby(&self, name: &str) -> Result<(), StateError> {
        let path = self.standby(name);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { doing: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// The names of sandboxes to come. Unreadable: none.
    pub(crate) fn standbys(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("standby")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Where what is being removed lies.
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// A directory for the launcher, to mount on what it alone sees.
    pub(crate) fn stage(&self) -> PathBuf {
        self.root.join("stage")
    }

    /// Writes a record, so that a reader finds this one or the one before.
    pub(crate) fn write(&self, record: &Record) -> Result<(), StateError> {
        let directory = self.sandbox(&record.id);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StateError::Io { doing: "make", path: directory, source: error });
            }
            _ => {}
        }
        file::replace(&directory.join(RECORD), &record.to_json()?)
    }

    /// Notes that a sandbox is on its way out: its record gets another name, which also works on a full disk.
    pub(crate) fn mark_deleting(&self, id: &SandboxId) -> Result<(), StateError> {
        let directory = self.sandbox(id);
        let (from, to) = (directory.join(RECORD), directory.join(DELETING));
        match fs::rename(&from, &to) {
            // Marked before; or never written, and then there is nothing to be taken for a sandbox.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { doing: "mark as being removed", path: from, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Reads one record; `None` when there is none.
    pub(crate) fn read_one(&self, id: &SandboxId) -> Result<Option<Record>, StateError> {
        read_in(&self.root, id)
    }

    /// Everything there is.
    ///
    /// # Errors
    /// When a record has a version that this program does not know: a newer one wrote it, and nothing may be
    /// destroyed. Records that nobody can read are put aside.
    pub(crate) fn read(&self) -> Result<Vec<Stored>, StateError> {
        let directory = self.root.join("sandboxes");
        let failed = |source| StateError::Io { doing: "read", path: directory.clone(), source };
        let mut stored = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| SandboxId::new(name).ok()) else {
                tracing::warn!(path = %entry.path().display(), "this is no sandbox's directory; left as it is");
                continue;
            };
            match self.read_one(&id) {
                Ok(Some(record)) => stored.push(Stored::Sandbox(Box::new(record))),
                Ok(None) => stored.push(Stored::Half(id)),
                Err(error @ StateError::Record { .. }) => self.put_aside(&id, &error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(stored)
    }

    /// Moves a directory whose record nobody can read out of the way. Its files stay.
    fn put_aside(&self, id: &SandboxId, error: &StateError) -> Result<(), StateError> {
        let from = self.sandbox(id);
        let to = self.root.join("unreadable").join(format!("{id}-{}", uuid::Uuid::new_v4().simple()));
        tracing::error!(sandbox_id = %id, %error, kept = %to.display(), "a record cannot be read; put aside");
        fs::rename(&from, &to).map_err(|source| StateError::Io { doing: "put aside", path: from, source })
    }

    /// Takes everything of the sandbox away from its place: the record first, so that nobody takes the rest for a
    /// sandbox. What remains to be done is [`trash::Trash::collect`]'s.
    pub(crate) fn discard(&self, id: &SandboxId) -> Result<(), StateError> {
        self.to_trash(&self.sandbox(id))
    }

    fn to_trash(&self, from: &Path) -> Result<(), StateError> {
        let to = self.trash().join(uuid::Uuid::new_v4().simple().to_string());
        match fs::rename(from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { doing: "move to the trash", path: from.to_owned(), source: error })
            }
            _ => Ok(()),
        }
    }
}

fn read_in(root: &Path, id: &SandboxId) -> Result<Option<Record>, StateError> {
    let path = sandbox_in(root, id).join(RECORD);
    if let Some(bytes) = file::read(&path)? {
        return Record::from_json(id, &path, &bytes).map(Some);
    }
    let path = sandbox_in(root, id).join(DELETING);
    let Some(bytes) = file::read(&path)? else { return Ok(None) };
    let mut record = Record::from_json(id, &path, &bytes)?;
    record.life.phase = Phase::Deleting;
    Ok(Some(record))
}

fn sandbox_in(root: &Path, id: &SandboxId) -> PathBuf {
    root.join("sandboxes").join(id.as_str())
}

/// Where what a sandbox writes outside its mounts lies, in the state directory at `root`.
pub(crate) fn files_in(root: &Path, id: &SandboxId) -> PathBuf {
    sandbox_in(root, id).join("files")
}

const RECORD: &str = "record.json";
/// The record's name from the moment its sandbox is to go.
const DELETING: &str = "record.deleting";

/// The directory must be ours alone: who can write it decides what is mounted.
fn check_private(root: &Path) -> Result<(), StateError> {
    let metadata = fs::metadata(root).map_err(|source| StateError::Io {
        doing: "look at",
        path: root.to_owned(),
        source,
    })?;
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us || metadata.mode() & 0o077 != 0 {
        return Err(StateError::NotPrivate {
            path: root.to_owned(),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            us,
        });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
