//! Mounts that show other owners than their files have.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::launch::sys;

/// Whether the file system at `path` can be mounted with the owners that the user namespace says.
///
/// # Errors
/// What the kernel said: `EINVAL` from a file system that cannot.
pub fn idmapping_works_at(path: &Path, users: BorrowedFd<'_>) -> io::Result<()> {
    works(&CString::new(path.as_os_str().as_bytes())?, users)
}

/// Tries it on a copy of the mount that is attached nowhere and ends here.
pub(super) fn works(path: &CStr, users: BorrowedFd<'_>) -> io::Result<()> {
    Ok(copy_of(path, users).map(drop)?)
}

/// A copy of the mount, attached nowhere, that shows the owners that the user namespace says. Allocates nothing.
pub(super) fn copy_of(path: &CStr, users: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    sys::set_mount(tree.as_fd(), 0, Some(users))?;
    Ok(tree)
}
