//! What is being removed, in the background: one thread, one thing after the other.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;

use rustix::fs::{Mode, OFlags};

use super::{StateError, removal};

/// Empties the trash directory whenever it is told that something is there.
#[derive(Debug)]
pub(crate) struct Trash {
    wake: SyncSender<()>,
}

impl Trash {
    /// Starts with what an earlier server left.
    pub(crate) fn start(directory: PathBuf) -> Result<Self, StateError> {
        // One message is enough: a look finds everything.
        let (wake, woken) = mpsc::sync_channel(1);
        let path = directory.clone();
        thread::Builder::new()
            .name("trash".to_owned())
            .spawn(move || run(&directory, &woken))
            .map_err(|source| StateError::Io { doing: "start a thread to empty", path, source })?;
        let trash = Self { wake };
        trash.collect();
        Ok(trash)
    }

    /// There is something new.
    pub(crate) fn collect(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("the trash is not emptied any more"),
        }
    }
}

fn run(directory: &Path, woken: &Receiver<()>) {
    // Ends with the server: the sender goes with it.
    while woken.recv().is_ok() {
        // What could not be removed stays and is tried again with what comes next.
        if let Err(error) = empty(directory) {
            tracing::warn!(
                path = %directory.display(), error = &error as &dyn std::error::Error,
                "the trash could not be emptied; tried again with the next deletion"
            );
        }
    }
}

/// Removes everything in the directory. What is in the way of one thing does not keep the others.
pub(crate) fn empty(directory: &Path) -> Result<(), StateError> {
    let failed = |source| StateError::Io { doing: "empty", path: directory.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let mut outcome = Ok(());
    // Deep trees are moved here in pieces: until a look finds nothing new, there is more.
    loop {
        let mut progress = false;
        for entry in fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Ok(c_name) = CString::new(name.as_bytes()) else { continue };
            match removal::remove(top.as_fd(), &c_name) {
                Ok(()) => progress = true,
                Err(error) => outcome = Err(failed(error.into())),
            }
        }
        if !progress {
            return outcome;
        }
        outcome = Ok(());
    }
}
