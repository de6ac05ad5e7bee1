//! From the mounts of a sandbox to the directories of this machine that are bound into it.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stockade_core::layout::{MountPlan, Skills, StorageLayout, UserData};
use stockade_core::mount::{MissingDirectory, Mount, MountError, Source, Volume};
use stockade_core::path::HostPath;

use crate::launch::spec::{Bind, Missing};
use crate::settings::MissingViews;

/// The binds of a plan, each after those above it.
pub(crate) fn binds(plan: &MountPlan, storage: &StorageLayout, views: MissingViews) -> Vec<Bind> {
    let mut binds: Vec<Bind> =
        plan.mounts.iter().filter_map(|mount| bind(mount, plan, storage, views)).collect();
    // A place sorts before everything below it.
    binds.sort_by(|a, b| a.target.cmp(&b.target));
    binds
}

fn bind(mount: &Mount, plan: &MountPlan, storage: &StorageLayout, views: MissingViews) -> Option<Bind> {
    let volume = plan.volumes.iter().find(|volume| volume.name == mount.volume)?;
    // Claims stop the start, and only Lark images make empty volumes: there are neither here.
    let Source::Host { path, missing } = &volume.source else { return None };
    let (base, mut below) = split(path, storage);
    if let Some(sub_path) = &mount.sub_path {
        below.push(sub_path);
    }
    let missing = match missing {
        _ if mount.sub_path.is_some() => Missing::Create,
        MissingDirectory::Create => Missing::Create,
        MissingDirectory::Refuse if is_view(volume, storage) => match views {
            MissingViews::Create => Missing::Create,
            MissingViews::Empty => Missing::Empty,
        },
        MissingDirectory::Refuse => Missing::Refuse,
    };
    Some(Bind {
        base,
        below,
        target: PathBuf::from(mount.target.as_str()),
        read_only: mount.read_only,
        missing,
    })
}

fn is_view(volume: &Volume, storage: &StorageLayout) -> bool {
    storage.skills == Skills::Views && volume.name.starts_with("skills-")
}

/// The directory that the operator named, and the way from there. What is below it, sandboxes may have written.
fn split(path: &HostPath, storage: &StorageLayout) -> (PathBuf, PathBuf) {
    let threads = match &storage.user_data {
        UserData::Threads(directory) => Some(directory),
        UserData::Base | UserData::Claim(_) => None,
    };
    let bases = [Some(&storage.base), storage.extra_mount_base.as_ref(), threads];
    // The longest, should one lie in another: its own links are the operator's.
    let named = bases.into_iter().flatten().filter_map(|base| {
        let below = if path.is_same(base) { String::new() } else { path.relative_to(base)? };
        Some((base, below))
    });
    match named.max_by_key(|(base, _)| base.as_str().len()) {
        Some((base, below)) => (PathBuf::from(base.as_str()), PathBuf::from(below)),
        None => (PathBuf::from(path.as_str()), PathBuf::new()),
    }
}

/// Looks whether every directory that must be there is, so that the answer names the one that is not; and says which
/// will be empty. The launch looks again, by descriptor.
pub(crate) fn look(binds: &[Bind]) -> Result<Vec<String>, MountError> {
    let mut notes = Vec::new();
    for bind in binds {
        match (open_below(&bind.base, &bind.below), bind.missing) {
            (Err(Errno::NOENT), Missing::Refuse) => {
                return Err(MountError::SourceMissing { path: full(bind) });
            }
            (Err(Errno::NOENT), Missing::Empty) => {
                notes.push(format!("{} is empty: there is no {}", bind.target.display(), full(bind)));
            }
            (Err(Errno::NOTDIR), _) => return Err(MountError::SourceNotDirectory { path: full(bind) }),
            (Err(Errno::NAMETOOLONG), _) => return Err(MountError::SourceNameTooLong { path: full(bind) }),
            (Err(Errno::LOOP | Errno::XDEV), _) => return Err(MountError::SourceIsLink { path: full(bind) }),
            _ => {}
        }
    }
    Ok(notes)
}

fn full(bind: &Bind) -> String {
    bind.base.join(&bind.below).display().to_string()
}

fn open_below(base: &Path, below: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(base, flags, Mode::empty())?;
    if below.as_os_str().is_empty() {
        return Ok(());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&base, below, flags, Mode::empty(), resolve).map(drop)
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
