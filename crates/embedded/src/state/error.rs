//! What can go wrong with the state directory.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the state directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The kernel refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others could change it.
    #[error(
        "{} belongs to user {owner} and has mode {mode:o}: it must belong to user {us} and be closed to others; \
         chmod 700 it, or choose another with --state-dir", path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Another server has it.
    #[error(
        "{} is in use by another server (process {holder}): one at a time; choose another with --state-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process id, as it wrote it down.
        holder: String,
    },
    /// Written by a newer version.
    #[error(
        "{} has format {found}, this version of Stockade knows up to {known}: use the version that wrote it, or \
         choose another directory with --state-dir; nothing was changed", path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we know.
        known: u64,
    },
    /// Not what we wrote.
    #[error("{} cannot be read as what it should be", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Something in it is not ours, and would be removed with it.
    #[error(
        "{} holds {}{}, which Stockade did not make: move that away, or remove the directory by hand; nothing was \
         ended or removed", path.display(), names.join(", "), and_more(*more)
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Some of it.
        names: Vec<String>,
        /// How much more there is.
        more: usize,
    },
    /// Something is mounted there.
    #[error(
        "{} cannot be removed, because something is mounted at {}: unmount it first, or run `stockade down` without \
         --purge; nothing was ended or removed", path.display(), point.display()
    )]
    Mounted {
        /// The directory.
        path: PathBuf,
        /// Where.
        point: PathBuf,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}
