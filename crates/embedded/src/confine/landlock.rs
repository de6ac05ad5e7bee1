//! Landlock: a second refusal of what the namespaces and the system call filter refuse already.
//!
//! What it adds beyond those: a process under it can change nothing about what is mounted, whatever rights it
//! finds; it can make no device; it can trace no process outside; and (ABI 6) it reaches no abstract socket and
//! signals no process outside, should a namespace ever be shared by mistake. It takes nothing from the
//! processes inside: they are all under the same rules, and may move files between directories.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Before this one, files cannot be moved between directories under any rule.
const LEAST_ABI: u32 = 2;
const SCOPES_SINCE: u32 = 6;

const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const MAKE_CHARACTER_DEVICE: u64 = 1 << 6;
const MAKE_BLOCK_DEVICE: u64 = 1 << 11;
const REFER: u64 = 1 << 13;
const SCOPE_ABSTRACT_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which has no padding.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// What the kernel's Landlock can do, by its own count; 0 when there is none.
#[must_use]
#[allow(unsafe_code)]
pub fn abi() -> u32 {
    // SAFETY: asks for a number; no pointer is given.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, CREATE_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// Whether [`restrict`] does anything on a kernel with this ABI.
#[must_use]
pub fn is_useful(abi: u32) -> bool {
    abi >= LEAST_ABI
}

/// Applies the rules to this process, for good. To be called after `/` is the sandbox's own and
/// `no_new_privs` is set, between fork and exec. Allocates nothing. Does nothing on a kernel without a useful ABI.
///
/// # Errors
/// The kernel refuses: `no_new_privs` is not set, or sixteen sets of rules are applied already.
#[allow(unsafe_code)]
pub fn restrict(abi: u32) -> io::Result<()> {
    if !is_useful(abi) {
        return Ok(());
    }
    let scoped = if abi >= SCOPES_SINCE { SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL } else { 0 };
    let rules = Ruleset {
        handled_access_fs: MAKE_CHARACTER_DEVICE | MAKE_BLOCK_DEVICE | REFER,
        handled_access_net: 0,
        scoped,
    };
    // An older kernel knows a shorter structure.
    let size = if scoped == 0 { 8 } else { size_of::<Ruleset>() };
    // SAFETY: the structure is the kernel's, and no more than its size is read.
    let ruleset =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size, 0) })?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else owns it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let moving = PathBeneath { allowed_access: REFER, parent_fd: root.as_raw_fd() };
    // SAFETY: the structure is the kernel's for this kind of rule; both descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const moving,
            0,
        )
    })?;
    // SAFETY: a descriptor and no flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn check(result: libc::c_long) -> io::Result<i32> {
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
