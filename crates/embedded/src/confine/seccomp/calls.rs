//! The system calls, by what they are for.
//!
//! The base is Docker's default list for a container without capabilities. Stricter: no `modify_ldt`, no `kcmp`,
//! no `pidfd_getfd`, no `fanotify`, no asynchronous files, no setuid bits, no line disciplines, few socket families and protocols. `ptrace` and
//! `process_vm_*` are allowed: gdb and strace are tools of the trade, the commands of a sandbox are one user
//! anyway, and the agent is out of their reach because it is not dumpable.

use libc::c_long;

/// Calls for one purpose.
#[derive(Debug)]
pub struct Purpose {
    /// What for.
    pub what: &'static str,
    /// Their numbers on this architecture.
    pub calls: &'static [c_long],
}

macro_rules! purposes {
    ($($what:literal: $($call:ident)*;)*) => { &[$(Purpose { what: $what, calls: &[$(libc::$call),*] }),*] };
}

/// Allowed, whatever their arguments.
pub const ALLOWED: &[Purpose] = purposes! {
    "reading and writing": SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev
        SYS_preadv2 SYS_pwritev2 SYS_lseek SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_copy_file_range
        SYS_readahead SYS_fadvise64;
    "descriptors": SYS_close SYS_close_range SYS_dup SYS_dup3 SYS_fcntl SYS_flock SYS_pipe2
        SYS_eventfd2 SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_memfd_create
        SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch SYS_epoll_create1 SYS_epoll_ctl
        SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_pselect6;
    "files": SYS_newfstatat SYS_fstat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat
        SYS_getdents64 SYS_unlinkat SYS_linkat SYS_symlinkat SYS_renameat SYS_renameat2
        SYS_fchown SYS_fchownat SYS_utimensat SYS_truncate SYS_ftruncate SYS_fallocate
        SYS_sync SYS_syncfs SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_umask SYS_getcwd SYS_chdir SYS_fchdir
        SYS_name_to_handle_at SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr
        SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr;
    "memory": SYS_brk SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_msync SYS_mincore SYS_madvise SYS_mlock
        SYS_mlock2 SYS_mlockall SYS_munlock SYS_munlockall SYS_remap_file_pages SYS_pkey_alloc SYS_pkey_free
        SYS_pkey_mprotect SYS_membarrier SYS_process_madvise SYS_process_mrelease;
    "processes": SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
        SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_pidfd_open
        SYS_pidfd_send_signal SYS_prctl SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_rseq
        SYS_getrusage SYS_times SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set
        SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self;
    "users, of whom there is one": SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid
        SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid
        SYS_setfsgid SYS_setgroups SYS_capget SYS_capset;
    "signals": SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigsuspend
        SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_restart_syscall;
    "waiting and time": SYS_futex SYS_futex_waitv SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime
        SYS_clock_getres SYS_gettimeofday SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime
        SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete;
    "scheduling": SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam
        SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getattr SYS_sched_setattr
        SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_getcpu;
    "sockets that exist": SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_shutdown SYS_getsockname
        SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg
        SYS_recvmmsg;
    "messages, in a namespace of the sandbox's own": SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive
        SYS_mq_notify SYS_mq_getsetattr SYS_msgget SYS_msgctl SYS_msgsnd SYS_msgrcv SYS_semget SYS_semctl SYS_semop
        SYS_semtimedop SYS_shmget SYS_shmctl SYS_shmat SYS_shmdt;
    "the system": SYS_uname SYS_sysinfo SYS_getrandom;
    "debugging one's own": SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev;
};

/// Older forms of the above, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
pub const ALLOWED_HERE: &[Purpose] = purposes! {
    "older forms": SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_rmdir SYS_unlink SYS_link SYS_symlink
        SYS_rename SYS_chown SYS_lchown SYS_utime SYS_utimes
        SYS_futimesat SYS_dup2 SYS_pipe SYS_eventfd SYS_signalfd SYS_inotify_init SYS_epoll_create SYS_epoll_wait
        SYS_poll SYS_select SYS_fork SYS_vfork SYS_getpgrp SYS_getrlimit SYS_alarm SYS_pause SYS_time;
    "registers of threads": SYS_arch_prctl SYS_get_thread_area SYS_set_thread_area;
};

/// Older forms of the above, which newer architectures never had.
#[cfg(target_arch = "aarch64")]
pub const ALLOWED_HERE: &[Purpose] = purposes! {
    "older forms": SYS_getrlimit;
};

/// Allowed calls that the C library crate has no names for on every target; the numbers are the same everywhere.
pub const ALLOWED_BY_NUMBER: &[(c_long, &str)] = &[
    (451, "cachestat"),
    (453, "map_shadow_stack"),
    (454, "futex_wake"),
    (455, "futex_wait"),
    (456, "futex_requeue"),
    (457, "statmount"),
    (458, "listmount"),
    (462, "mseal"),
];

/// Refused with `EPERM`, as a process without rights would be anywhere. Each is either of no use without
/// capabilities, or has been the way out of a sandbox before.
pub const REFUSED: &[Purpose] = purposes! {
    "changing what is mounted": SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount
        SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff SYS_quotactl
        SYS_quotactl_fd;
    "entering namespaces": SYS_setns;
    "files around the paths to them": SYS_open_by_handle_at SYS_fanotify_init SYS_fanotify_mark;
    "keys, which are not in any namespace": SYS_add_key SYS_request_key SYS_keyctl;
    "programs in the kernel": SYS_bpf SYS_perf_event_open SYS_init_module SYS_finit_module SYS_delete_module
        SYS_kexec_load;
    "descriptors and secrets of other processes": SYS_kcmp SYS_pidfd_getfd;
    "the machine's memory, clocks, log, name and power": SYS_mbind SYS_set_mempolicy SYS_get_mempolicy
        SYS_migrate_pages SYS_move_pages SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
        SYS_syslog SYS_sethostname SYS_setdomainname SYS_reboot SYS_acct SYS_vhangup;
};

/// Refused here only.
#[cfg(target_arch = "x86_64")]
pub const REFUSED_HERE: &[Purpose] = purposes! {
    "the processor's tables and ports": SYS_modify_ldt SYS_iopl SYS_ioperm;
    "programs in the kernel": SYS_kexec_file_load;
};

/// Refused here only.
#[cfg(target_arch = "aarch64")]
pub const REFUSED_HERE: &[Purpose] = &[];

/// Not there (`ENOSYS`), so that programs use something else: `clone` instead of `clone3`, whose flags a filter
/// cannot see because they are behind a pointer; `openat` instead of `openat2`, whose mode is; `epoll` instead of
/// `io_uring`, which does other calls' work unseen by filters; threads instead of `io_setup`, whose number is one
/// for the whole machine (`fs.aio-max-nr`); signals instead of `userfaultfd`, by which a process holds up the kernel.
pub const ABSENT: &[Purpose] = purposes! {
    "reading and writing, counted for the whole machine": SYS_io_setup SYS_io_destroy SYS_io_submit SYS_io_cancel
        SYS_io_getevents;
    "calls by other means": SYS_clone3 SYS_openat2 SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_userfaultfd
        SYS_memfd_secret;
};

/// A call that sets the mode of a file.
#[derive(Debug, Clone, Copy)]
pub struct ModeCall {
    /// Its number.
    pub call: c_long,
    /// Which argument is the mode.
    pub mode: u32,
    /// Which argument says whether a file is made; without that the mode is not looked at.
    pub flags: Option<u32>,
}

const fn sets(call: c_long, mode: u32) -> ModeCall {
    ModeCall { call, mode, flags: None }
}

const fn opens(call: c_long, flags: u32, mode: u32) -> ModeCall {
    ModeCall { call, mode, flags: Some(flags) }
}

/// Allowed as long as the mode has none of [`FORBIDDEN_MODE`].
pub const MODES: &[ModeCall] = &[
    opens(libc::SYS_openat, 2, 3),
    sets(libc::SYS_fchmod, 1),
    sets(libc::SYS_fchmodat, 2),
    sets(FCHMODAT2, 2),
    sets(libc::SYS_mkdirat, 2),
    sets(libc::SYS_mknodat, 2),
];

/// `fchmodat2`, which the C library crate does not name on every target.
const FCHMODAT2: c_long = 452;

/// Older forms of the above, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
pub const MODES_HERE: &[ModeCall] = &[
    opens(libc::SYS_open, 1, 2),
    sets(libc::SYS_creat, 1),
    sets(libc::SYS_chmod, 1),
    sets(libc::SYS_mkdir, 1),
    sets(libc::SYS_mknod, 1),
];

/// Older forms of the above, which newer architectures never had.
#[cfg(target_arch = "aarch64")]
pub const MODES_HERE: &[ModeCall] = &[];

/// Bits of a mode that a sandbox sets nowhere: to run as the file's owner or group (setuid, setgid). Inside they have
/// no effect. Outside, files of a directory that is shown belong to the directory's owner, often root, and whoever
/// may execute such a file there would be that owner.
pub const FORBIDDEN_MODE: u32 = 0o6000;

/// Flags with which opening makes a file: `O_CREAT`, and `O_TMPFILE` without the `O_DIRECTORY` it includes.
#[allow(clippy::cast_sign_loss, reason = "flags are bits")]
pub const MAKES_A_FILE: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

/// Flags of `clone` and `unshare` that make namespaces.
pub const NAMESPACE_FLAGS: u32 = 0x7E02_0000;
/// The time namespace's flag; in `clone` it is part of the signal's number.
pub const TIME_NAMESPACE_FLAG: u32 = 0x80;

/// `RLIMIT_CORE`, the limit of core files, which is one byte and stays so: at zero, to which programs like to set it, the kernel
/// starts the machine's handler of crashes, as the machine's root.
pub const CORE_LIMIT: u32 = 4;

/// Personalities of a process: the plain one, and Docker's four others.
pub const PERSONALITIES: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// `ioctl`s that are refused: typing for others into a shared terminal (`TIOCSTI`), pasting into a console
/// (`TIOCLINUX`), and line disciplines (`TIOCSETD`), drivers that any user can load by name.
pub const REFUSED_IOCTLS: &[u32] = &[0x5412, 0x541C, 0x5423];

/// Socket families and the protocols in each; what is not here is not supported.
pub const SOCKETS: &[(i32, &[i32])] = &[
    (libc::AF_UNIX, &[0, libc::AF_UNIX]),
    // Any, ICMP (ping), TCP, UDP, multipath TCP (which Go's listeners ask for first).
    (libc::AF_INET, &[0, 1, 6, 17, 262]),
    (libc::AF_INET6, &[0, 6, 17, 58, 262]),
    // Routes and addresses only: `getifaddrs` needs them.
    (libc::AF_NETLINK, &[0]),
];
