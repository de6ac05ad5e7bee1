//! One server at a time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StateError;

/// Held until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Takes it, or says who has it.
    pub(super) fn take(root: &Path) -> Result<Self, StateError> {
        let path = root.join("lock");
        let failed = |source| StateError::Io { doing: "lock", path: path.clone(), source };
        // Close-on-exec, as everything that Rust opens: launcher and relay must not hold it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // What it says is for people; the lock itself decides.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(StateError::InUse { path: root.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // For people only, and over what is there: a full disk is no reason not to start.
        let holder = format!("{}\n", std::process::id());
        let written = file
            .rewind()
            .and_then(|()| file.write_all(holder.as_bytes()))
            .and_then(|()| file.set_len(holder.len() as u64));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "who has the state directory cannot be written down");
        }
        Ok(Self(file))
    }
}
