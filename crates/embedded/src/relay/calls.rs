//! Which system calls the relay makes: those of passing bytes on, and of stepping into network namespaces.
//!
//! It has the right to do nearly anything with the machine (`CAP_SYS_ADMIN` is needed to enter a sandbox's
//! network), so what it never does is taken from it: executing, mounting, tracing, writing to files by name.

use libc::{c_long, sock_filter};

use crate::confine::seccomp::Program;
use crate::confine::seccomp::assemble::{
    ABSENT, ALLOW, ANY_BIT, EQUAL, REFUSE, beginning, jump, load, low, number, one_of, ret, short,
};

/// What sockets, the event loop, threads and memory need.
const ALLOWED: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getpeername,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls of older programs that x86_64 still has and C libraries still use.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_tkill,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Opening a file by name may read it, and nothing else.
const WRITING: u32 = flags(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);

const fn flags(flags: libc::c_int) -> u32 {
    flags.cast_unsigned()
}

/// The filter. What it does not know is refused as something that may not be done.
pub(super) fn program() -> Program {
    let mut program = beginning();
    for (call, block) in with_arguments() {
        program.push(jump(EQUAL, number(call), 0, short(block.len())));
        program.extend(block);
    }
    for call in ALLOWED.iter().chain(ALLOWED_HERE) {
        program.extend([jump(EQUAL, number(*call), 0, 1), ret(ALLOW)]);
    }
    program.push(ret(REFUSE));
    Program::of(program)
}

fn with_arguments() -> Vec<(c_long, Vec<sock_filter>)> {
    let network = [flags(libc::CLONE_NEWNET)];
    let thread = vec![load(low(0)), jump(ANY_BIT, flags(libc::CLONE_THREAD), 0, 1), ret(ALLOW), ret(REFUSE)];
    let internet = [flags(libc::AF_INET), flags(libc::AF_INET6)];
    // NS_GET_NSTYPE and FIONBIO. Their values have 32 bits, whatever type the C library gives them.
    let controls = [0xb703, 0x5421];
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut, reason = "one more there"))]
    let mut all = vec![
        (libc::SYS_setns, one_of(low(1), &network, ALLOW, REFUSE)),
        (libc::SYS_unshare, one_of(low(0), &network, ALLOW, REFUSE)),
        (libc::SYS_socket, one_of(low(0), &internet, ALLOW, REFUSE)),
        // Between the event loop and its signals.
        (libc::SYS_socketpair, one_of(low(0), &[flags(libc::AF_UNIX)], ALLOW, REFUSE)),
        // Names of threads.
        (libc::SYS_prctl, one_of(low(0), &[flags(libc::PR_SET_NAME)], ALLOW, REFUSE)),
        (libc::SYS_ioctl, one_of(low(1), &controls, ALLOW, REFUSE)),
        (libc::SYS_clone, thread),
        // Its flags cannot be looked at; C libraries fall back to clone.
        (libc::SYS_clone3, vec![ret(ABSENT)]),
        (libc::SYS_openat, reading(2)),
    ];
    #[cfg(target_arch = "x86_64")]
    all.push((libc::SYS_open, reading(1)));
    all
}

/// Allowed unless the flags, which are this argument, are for more than reading.
fn reading(argument: u32) -> Vec<sock_filter> {
    vec![load(low(argument)), jump(ANY_BIT, WRITING, 0, 1), ret(REFUSE), ret(ALLOW)]
}
