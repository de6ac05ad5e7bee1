//! Mounts that show other owners than their files have.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

/// Whether the file system at `path` can be mounted with the owners that the user namespace says.
///
/// # Errors
/// What the kernel said: `EINVAL` from a file system that cannot.
pub fn idmapping_works_at(path: &Path, users: BorrowedFd<'_>) -> io::Result<()> {
    works(&CString::new(path.as_os_str().as_bytes())?, users)
}

/// `struct mount_attr` of the kernel, first version.
#[repr(C)]
struct MountAttributes {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Tries it on a copy of the mount that is attached nowhere and ends here.
#[allow(unsafe_code)]
pub(super) fn works(path: &CStr, users: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    let attributes = MountAttributes {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).unwrap_or(u64::MAX),
    };
    // SAFETY: the path is empty and terminated, the structure is the kernel's and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
