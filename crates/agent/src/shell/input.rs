//! Whether what is in front waits for input from the terminal, seen from outside.
//!
//! The kernel says in which system call a thread sleeps, and with which arguments: reading the terminal, or waiting
//! until it can be read. Whoever waits for a socket as well is a server that also listens to keys, and waits for nobody.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::terminal::Terminal;

/// The number of `/dev/tty`, which is the terminal of whoever opens it.
const OWN_TERMINAL: u64 = 5 << 8;
/// Threads of a process that are looked at, and descriptors that a thread waits for.
const MOST_THREADS: usize = 32;
const MOST_DESCRIPTORS: usize = 128;

/// Whether a process of the group in front sleeps until somebody types. Reads `/proc`: call it on the pool.
pub(super) fn is_awaited(terminal: &Terminal) -> bool {
    let Some(front) = terminal.foreground() else { return false };
    let Ok(device) = terminal.device() else { return false };
    let front = front.as_raw_nonzero().get();
    let members = terminal.family.members();
    members.iter().filter(|member| member.group == front).any(|member| awaits(member.pid, device))
}

fn awaits(pid: i32, device: u64) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.filter_map(Result::ok).take(MOST_THREADS).any(|thread| {
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        let wanted = Call::parse(&call).map(|call| call.reads_from(pid)).unwrap_or_default();
        let mut kinds = wanted.into_iter().map(|number| Kind::of(pid, number, device)).peekable();
        let mut terminal = false;
        kinds.peek().is_some()
            && kinds.all(|kind| {
                terminal |= kind == Kind::Terminal;
                kind != Kind::Socket
            })
            && terminal
    })
}

/// What a descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminal,
    Socket,
    Other,
}

impl Kind {
    fn of(pid: i32, number: i32, device: u64) -> Self {
        let Ok(file) = fs::metadata(format!("/proc/{pid}/fd/{number}")) else { return Self::Other };
        match file.file_type() {
            kind if kind.is_socket() => Self::Socket,
            kind if kind.is_char_device() && [device, OWN_TERMINAL].contains(&file.rdev()) => Self::Terminal,
            _ => Self::Other,
        }
    }
}

/// The system call that a thread sleeps in.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    number: i64,
    arguments: [u64; 3],
}

impl Call {
    /// A line of `/proc/PID/task/TID/syscall`. A thread that runs, or was stopped outside of a call, is in none.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        Some(Self { number, arguments: [argument()?, argument()?, argument()?] })
    }

    /// The descriptors that it waits for something to be read from.
    fn reads_from(&self, pid: i32) -> Vec<i32> {
        let [first, second, _] = self.arguments;
        let descriptor = i32::try_from(first).ok();
        match self.number {
            libc::SYS_read | libc::SYS_readv => descriptor.into_iter().collect(),
            libc::SYS_ppoll => polled(pid, first, second),
            libc::SYS_pselect6 => selected(pid, first, second),
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => watched(pid, descriptor),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => polled(pid, first, second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => selected(pid, first, second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => watched(pid, descriptor),
            _ => Vec::new(),
        }
    }
}

/// Of an array of `struct pollfd`: a descriptor, and two words of what is waited for and what has come.
fn polled(pid: i32, array: u64, count: u64) -> Vec<i32> {
    let count = usize::try_from(count).unwrap_or(0).min(MOST_DESCRIPTORS);
    let bytes = memory_of(pid, array, count * 8);
    let (entries, _) = bytes.as_chunks::<8>();
    let wanted = entries.iter().filter(|[_, _, _, _, events, ..]| i16::from(*events) & libc::POLLIN != 0);
    wanted
        .map(|[a, b, c, d, ..]| i32::from_ne_bytes([*a, *b, *c, *d]))
        .filter(|number| *number >= 0)
        .collect()
}

/// Of a set of descriptors, one bit each, of which the first `count` mean something.
fn selected(pid: i32, count: u64, set: u64) -> Vec<i32> {
    let count = usize::try_from(count).unwrap_or(0).min(MOST_DESCRIPTORS);
    let bytes = if set == 0 { Vec::new() } else { memory_of(pid, set, count.div_ceil(8)) };
    let is_in = |number: &usize| bytes.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
    (0..count).filter(is_in).filter_map(|number| i32::try_from(number).ok()).collect()
}

/// Of a descriptor of `epoll`, whose lines say `tfd: NUMBER events: BITS`.
fn watched(pid: i32, epoll: Option<i32>) -> Vec<i32> {
    let Some(epoll) = epoll else { return Vec::new() };
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{epoll}")).unwrap_or_default();
    text.lines().take(MOST_DESCRIPTORS).filter_map(epoll_target).collect()
}

fn epoll_target(line: &str) -> Option<i32> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let events = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    (events & u64::from(libc::EPOLLIN.unsigned_abs()) != 0).then_some(number)
}

/// Memory of another process; less than asked for, or none, where it may not be read.
#[allow(unsafe_code)]
fn memory_of(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; length];
    let Ok(address) = usize::try_from(address) else { return Vec::new() };
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: length };
    // SAFETY: writes at most `length` bytes into `bytes`; the other address is the other process's, and only asked for.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    bytes
}

/// The number of the device that a terminal is.
pub(super) fn device_of(terminal: impl AsFd) -> std::io::Result<u64> {
    Ok(rustix::fs::fstat(terminal)?.st_rdev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "0 0x0 0x7ffd5 0x1 0x0 0x0 0x0 0x7ffd5 0x7f21\n";
        assert_eq!(Call::parse(line), Some(Call { number: 0, arguments: [0, 0x7ffd5, 1] }));
        for other in ["running\n", "-1 0x7ffd5 0x7f21\n", "", "0 0x0"] {
            assert_eq!(Call::parse(other), None, "{other}");
        }
        let line = "tfd:        0 events:       19 data:  0  pos:0 ino:3 sdev:17";
        assert_eq!(epoll_target(line), Some(0));
        for other in ["tfd:        5 events:       18 data:  0", "pos:\t0", ""] {
            assert_eq!(epoll_target(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_waited_for_is_read_from_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        let poll = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let array =
            [poll(7, libc::POLLIN), poll(8, libc::POLLOUT), poll(-1, libc::POLLIN), poll(9, libc::POLLIN)];
        let address = array.as_ptr().expose_provenance() as u64;
        assert_eq!(polled(own, address, 4), [7, 9]);
        let set = [0b0010_0001_u8, 0, 0b1000_0000];
        let address = set.as_ptr().expose_provenance() as u64;
        assert_eq!(selected(own, 24, address), [0, 5, 23]);
        assert_eq!(selected(own, 23, address), [0, 5], "only the first are meant");
        assert_eq!(selected(own, 24, 0), Vec::<i32>::new());
        assert_eq!(memory_of(own, 8, 16), Vec::<u8>::new(), "nothing is there");
    }
}
