//! The end of everything on a state directory: sandboxes, relay, networks, groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use thiserror::Error;
use tokio::time::timeout;

use super::{process, start};
use crate::cgroup::{CgroupError, Cgroups};
use crate::facts::MachineFacts;
use crate::network::{self, NetworkError};
use crate::relay::{self, Relay, RelayError, RelayOptions};
use crate::state::record::Record;
use crate::state::{self, StateDir, StateError, Stored, trash};

/// How long killed processes may take to be gone.
const GROUPS: Duration = Duration::from_secs(5);

/// Why not everything ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DownError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The relay does not end.
    #[error("the relay does not end")]
    Relay(#[from] RelayError),
    /// Processes are left.
    #[error("processes of sandboxes do not end")]
    Cgroup(#[from] CgroupError),
    /// Networks are left.
    #[error("networks of sandboxes cannot be removed")]
    Network(#[from] NetworkError),
    /// Something of the kernel's cannot be read, or a thread ended.
    #[error("cannot {what}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether [`down`] would come to its end, as far as can be seen beforehand. `server` is the process that serves on the
/// directory and is about to be ended.
///
/// # Errors
/// What is in the way. Nothing is changed.
pub fn check_down(directory: &Path, purge: bool, server: Option<i32>) -> Result<(), DownError> {
    state::check_end(directory, purge, server)?;
    relay::find(directory)?;
    Ok(())
}

/// Ends all sandboxes of a state directory and everything that outlived its server; how many sandboxes there were. No
/// server may run on it. With `purge` the directory goes too, with the key and the files of all threads that lie in it.
///
/// # Errors
/// When something does not end. It may be repeated.
pub async fn down(directory: &Path, facts: &MachineFacts, purge: bool) -> Result<usize, DownError> {
    if !directory.is_dir() {
        return Ok(0);
    }
    let state = StateDir::open(directory)?;
    if relay::find(state.root())?.is_some() {
        let (relay, _events) = Relay::connect_or_start(RelayOptions::new(state.root())).await?;
        relay.shutdown().await?;
    }
    let mut records = Vec::new();
    let mut half = Vec::new();
    for stored in state.read()? {
        match stored {
            Stored::Sandbox(record) => records.push(record),
            Stored::Half(id) => half.push(id),
        }
    }
    let kernel = |what| move |source| DownError::Kernel { what, source };
    let boot_id = process::boot_id().map_err(kernel("read which start of the machine this is"))?;
    // All at once: each may take its grace.
    let ends: Vec<_> =
        records.iter().map(|record| tokio::spawn(end(record.as_ref().clone(), boot_id.clone()))).collect();
    for end in ends {
        end.await.map_err(|error| kernel("end a sandbox")(error.into()))?;
    }
    let cgroups = Cgroups::open(&facts.cgroups, state.machine().name())?;
    for id in cgroups.list() {
        cgroups.discard(&id, GROUPS)?;
    }
    // Who could not make any has none to remove.
    if facts.can_open_network() {
        network::down(state.machine().name())?;
    }
    cgroups.close()?;
    for id in records.iter().map(|record| &record.id).chain(&half) {
        state.discard(id)?;
    }
    for incarnation in state.standbys() {
        state.discard_standby(&incarnation)?;
    }
    trash::empty(&state.trash())?;
    if purge {
        remove(&state)?;
    }
    Ok(records.len())
}

/// Asks the main process of a sandbox to end, and then tells it to.
async fn end(record: Record, boot_id: String) {
    let (_, Some(pidfd)) = process::find(record.life.process.as_ref(), &boot_id) else { return };
    if !record.life.paused {
        let _ = pidfd_send_signal(&pidfd, Signal::TERM);
        let _ = timeout(record.launch.grace, start::ended(&pidfd)).await;
    }
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    if !record.life.paused {
        let _ = timeout(GROUPS, start::ended(&pidfd)).await;
    }
}

/// Removes the directory. What sandboxes wrote in it is removed as everything of theirs is.
fn remove(state: &StateDir) -> Result<(), StateError> {
    const KEPT: [&str; 2] = ["lock", "trash"];
    let root = state.root();
    let failed = |path: PathBuf| move |source| StateError::Io { doing: "remove", path, source };
    for entry in fs::read_dir(root).map_err(failed(root.to_owned()))? {
        let entry = entry.map_err(failed(root.to_owned()))?;
        if KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        let path = entry.path();
        let to = state.trash().join(uuid::Uuid::new_v4().simple().to_string());
        fs::rename(&path, to).map_err(failed(path))?;
    }
    trash::empty(&state.trash())?;
    fs::remove_dir(state.trash()).map_err(failed(state.trash()))?;
    let lock = root.join("lock");
    fs::remove_file(&lock).map_err(failed(lock))?;
    fs::remove_dir(root).map_err(failed(root.to_owned()))
}
