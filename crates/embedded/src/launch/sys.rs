//! System calls that no library has a safe function for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// What a fork returned.
pub(crate) enum Forked {
    /// In the parent: the child's process id and a descriptor of it.
    Parent(i32, OwnedFd),
    /// In the child.
    Child,
}

/// `struct clone_args` of the kernel, first version.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArguments {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
}

const SIGCHLD: u64 = 17;

/// Forks into a new process namespace, of which the child is process 1.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// The calling process has a single thread: the child may then go on as any process does.
#[allow(unsafe_code)]
pub(crate) unsafe fn fork_into_process_namespace() -> Result<Forked, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = u64::from((libc::CLONE_PIDFD | libc::CLONE_NEWPID).cast_unsigned());
    let arguments = CloneArguments {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: SIGCHLD,
        ..CloneArguments::default()
    };
    // SAFETY: without a stack and CLONE_VM this is a fork; the structure is the kernel's, and the place for the
    // descriptor outlives the call.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(Forked::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// `struct mount_attr` of the kernel, first version.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    users: u64,
}

/// Nothing on the mount may be written.
pub(crate) const READ_ONLY: u64 = 0x1;
/// Setuid programs have no effect.
pub(crate) const NO_SETUID: u64 = 0x2;
/// Device files have no effect.
pub(crate) const NO_DEVICES: u64 = 0x4;
/// Nothing may be executed.
pub(crate) const NO_EXECUTION: u64 = 0x8;
const MAPPED: u64 = 0x0010_0000;
const PRIVATE: u64 = 1 << 18;

/// Changes a mount and those below it; with `users`, its owners are shown as that namespace maps them.
#[allow(unsafe_code)]
pub(crate) fn set_mount(mount: BorrowedFd<'_>, set: u64, users: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let attributes = MountAttributes {
        set: set | users.map_or(0, |_| MAPPED),
        clear: 0,
        // What is mounted outside later does not appear inside.
        propagation: PRIVATE,
        users: users.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: the structure is the kernel's, its size is said, and the descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}

/// Whom new files belong to, until it is changed back.
#[allow(unsafe_code)]
pub(crate) fn set_file_owner(user: u32, group: u32) {
    // SAFETY: numbers only. A failure shows in the operation that follows.
    unsafe {
        libc::setfsgid(group);
        libc::setfsuid(user);
    }
}

/// Sets user and group for good, or in part if the kernel refuses.
#[allow(unsafe_code)]
pub(crate) fn set_user(id: u32) -> Result<(), Errno> {
    // SAFETY: numbers only. The plain system calls act on this one thread, which is all there is.
    check(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) })?;
    Ok(())
}

/// Leaves all other groups.
#[allow(unsafe_code)]
pub(crate) fn leave_groups() -> Result<(), Errno> {
    // SAFETY: an empty list.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) })?;
    Ok(())
}

/// Enters the namespace of this kind (`CLONE_NEW…`).
#[allow(unsafe_code)]
pub(crate) fn enter_namespace(fd: BorrowedFd<'_>, kinds: i32) -> Result<(), Errno> {
    // SAFETY: a descriptor and a number. Kinds that would disturb other threads are refused by the kernel.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds) })?;
    Ok(())
}

/// Leaves the namespaces of these kinds for new ones.
#[allow(unsafe_code)]
pub(crate) fn unshare(kinds: i32) -> Result<(), Errno> {
    // SAFETY: a number; descriptors stay shared with nobody, because CLONE_FILES is not among the kinds.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds) })?;
    Ok(())
}

/// Lets every descriptor but the standard ones close when a program is executed.
#[allow(unsafe_code)]
pub(crate) fn close_all_on_execution() -> Result<(), Errno> {
    // SAFETY: only a flag is set.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Lets the descriptor of this number close when a program is executed.
///
/// # Errors
/// `EBADF`: it is not open.
#[allow(unsafe_code)]
pub(crate) fn close_on_execution(number: RawFd) -> Result<(), Errno> {
    // SAFETY: only a flag is set, and of a number that is not open there is none.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    Ok(())
}

/// Closes all descriptors from `first` to `last`.
#[allow(unsafe_code)]
pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: numbers. Whoever owned what is closed must not use it again, which callers see to.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Makes `number` a copy of the descriptor, open also in a program that is executed. What it was is closed.
#[allow(unsafe_code)]
pub(crate) fn copy_to(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: numbers. Whoever owned `number` must not use it again, which callers see to.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())?;
    Ok(())
}

/// Handles no signal and blocks none, as a fresh program expects.
#[allow(unsafe_code)]
pub(crate) fn default_signals() {
    // SAFETY: default actions hold no pointers, and the empty set is initialised by sigemptyset.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks the end of children and returns a descriptor that tells of it.
#[allow(unsafe_code)]
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised by sigemptyset, and the descriptor is made for us.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into()).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Executes the program behind the descriptor. Returns only if that fails.
#[allow(unsafe_code)]
pub(crate) fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> Errno {
    let list = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with null and their strings outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::IO)
}

/// Turns the result of a system call into a `Result`.
pub(crate) fn check(result: libc::c_long) -> Result<i32, Errno> {
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
