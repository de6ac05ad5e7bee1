//! Walking where sandboxes may have written: by descriptor, and never through a symbolic link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::failure::{At, Problem};
use super::sys::set_file_owner;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const NO_WAY_OUT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// What a directory made for a sandbox allows: the same as `mkdir` under the usual umask.
const MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// A directory the operator named: symbolic links are the operator's own.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Problem> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).at(path)
}

/// The directory at `path` below `directory`; a leading `/` means `directory` itself.
///
/// # Errors
/// `ELOOP` where a symbolic link is on the way, `ENOENT` where nothing is.
pub(crate) fn open_below(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut relative = std::path::PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => relative.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
        }
    }
    if relative.as_os_str().is_empty() {
        relative.push(".");
    }
    rustix::fs::openat2(directory, &relative, DIRECTORY, Mode::empty(), NO_WAY_OUT)
}

/// As [`open_below`]; what is missing is made, component by component, with the owner of what it is made in.
pub(crate) fn make_below(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Problem> {
    match open_below(directory, path) {
        Err(Errno::NOENT) => {}
        other => return other.at(path),
    }
    let mut current = open_below(directory, Path::new(".")).at(path)?;
    let mut walked = std::path::PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        walked.push(name);
        let name = Path::new(name);
        current = match open_below(current.as_fd(), name) {
            Err(Errno::NOENT) => {
                make_one(current.as_fd(), name).at(&walked)?;
                open_below(current.as_fd(), name).at(&walked)?
            }
            other => other.at(&walked)?,
        };
    }
    Ok(current)
}

/// Makes a directory as its parent's owner would: under a mapped mount nobody else can.
fn make_one(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let owner = rustix::fs::fstat(parent)?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    set_file_owner(owner.st_uid, owner.st_gid);
    let made = rustix::fs::mkdirat(parent, name, MODE);
    set_file_owner(user, group);
    match made {
        // Somebody was faster: what is there is opened with the same care.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The directory `name` in `directory`, made if missing, for this owner.
pub(crate) fn make_owned(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, Errno> {
    let name = name.as_ref();
    let made = match rustix::fs::mkdirat(directory, name, MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let opened = open_below(directory, name)?;
    if let (true, Some((user, group))) = (made, owner) {
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        rustix::fs::chownat(&opened, "", Some(user), Some(group), rustix::fs::AtFlags::EMPTY_PATH)?;
    }
    Ok(opened)
}

/// Makes `path` below `directory`, of which nothing is there that is not ours, for this owner; its parents too.
pub(crate) fn make_all_owned(
    directory: BorrowedFd<'_>,
    path: &Path,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, Errno> {
    let mut current = open_below(directory, Path::new("."))?;
    for component in path.components() {
        if let Component::Normal(name) = component {
            current = make_owned(current.as_fd(), Path::new(name), owner)?;
        }
    }
    Ok(current)
}

/// Opens a file of the machine to be read by its path.
pub(crate) fn open_file(path: &Path) -> Result<OwnedFd, Problem> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(path)
}
