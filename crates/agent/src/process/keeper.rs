//! The process between the agent and a command, which no descendant of the command can leave.
//!
//! A process whose parent has ended becomes a child of the nearest ancestor that is a *child subreaper*. So each command
//! gets a parent of its own that is one:
//!
//! ```text
//!   agent ── keeper ── the command (bash, an interpreter) ── what it starts
//!                 └─── whatever it started whose parent has ended: double forks, setsid, nohup
//! ```
//!
//! All processes below a keeper are those that its command started, whatever they did to their session, group, name or
//! environment. It waits for them, tells the agent how the command itself ended, and ends with the last of them.
//!
//! The keeper is made by the fork that starts the command, which forks once more, and executes no program. It is a copy
//! of one thread of the agent, so it makes system calls only, and gives back what memory of the agent it holds: else
//! every page that the agent writes later would exist once more for each command.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// What a keeper writes when its command has ended: its own id, the command's, and what `waitid` said of it.
pub(super) type Note = [i32; 4];
pub(super) const NOTE_BYTES: usize = size_of::<Note>();

/// How long the agent's memory is held before it is given back.
const SOON_NANOSECONDS: libc::c_long = 100_000_000;
/// Mappings of the agent that a keeper gives back at most; there are some dozens.
const MOST_RANGES: usize = 1024;

/// Where a command says its process id before it executes its program: memory that the agent shares with its children.
static SLOT: OnceLock<&'static AtomicI32> = OnceLock::new();

/// Makes the memory by which a command says its process id.
#[allow(unsafe_code)]
pub(super) fn prepare() -> io::Result<()> {
    if SLOT.get().is_some() {
        return Ok(());
    }
    let (access, sharing) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: asks for memory that is nobody's yet.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicI32>(), access, sharing, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory is aligned to a page, zeroed, and never given back.
    let slot = unsafe { &*memory.cast::<AtomicI32>() };
    let _ = SLOT.set(slot);
    Ok(())
}

/// The process id that the command started last has said.
pub(super) fn command_of_last_start() -> Option<i32> {
    Some(SLOT.get()?.load(Ordering::Acquire))
}

/// Makes the calling process a keeper, and returns in its child, which is to become the command. To be called between
/// fork and exec; the keeper never returns.
#[allow(unsafe_code)]
pub(super) fn split(notes: i32) -> io::Result<()> {
    // Before the fork: nothing that is sent to the keeper may run a handler of the agent's. The command heeds them again.
    set_every_signal(libc::SIG_IGN);
    // SAFETY: sets a flag of this process.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // Whoever waits for it must not miss it; the command has it back.
    let child_ended = child_signal();
    // SAFETY: about this thread alone, and the set outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const child_ended, std::ptr::null_mut()) };
    // SAFETY: a fork in its plainest form. What the C library does around one is for programs that go on afterwards;
    // the child executes a program, and this process makes system calls.
    let command = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match i32::try_from(command) {
        Ok(0) => {
            set_every_signal(libc::SIG_DFL);
            // SAFETY: as above.
            unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const child_ended, std::ptr::null_mut()) };
            if let Some(slot) = SLOT.get() {
                // SAFETY: asks for a number.
                slot.store(unsafe { libc::getpid() }, Ordering::Release);
            }
            Ok(())
        }
        Ok(command @ 1..) => keep(command, notes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What ignores a signal passes that on to the programs it executes, and a shell cannot take it back: below `nohup`, a
/// closed session would leave its background jobs behind.
#[allow(unsafe_code)]
fn set_every_signal(to: libc::sighandler_t) {
    for signal in 1..=libc::SIGRTMAX() {
        // An ignored one would have the kernel reap in the keeper's place.
        if signal != libc::SIGCHLD || to == libc::SIG_DFL {
            // SAFETY: async-signal-safe, and about this process alone. Those it must not be asked for (SIGKILL, SIGSTOP,
            // the C library's own) are refused and stay as they are.
            unsafe { libc::signal(signal, to) };
        }
    }
    if to == libc::SIG_IGN {
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
}

/// Waits for all children there are and will be.
#[allow(unsafe_code)]
fn keep(command: i32, notes: i32) -> ! {
    close_all_but(notes);
    // SAFETY: both are about this process alone; the texts are static. A directory it stood in would be kept busy.
    unsafe {
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, c"stockade-keeper".as_ptr());
    }
    let mut is_small = false;
    loop {
        match next_ended(is_small) {
            Some(Ended { child, code, status }) => {
                if child == command {
                    // Before it is reaped: while its number is its own.
                    // SAFETY: asks for a number.
                    let note: Note = [unsafe { libc::getpid() }, command, code, status];
                    // SAFETY: writes plain data that is there. A pipe takes that little as a whole.
                    unsafe { libc::write(notes, note.as_ptr().cast(), NOTE_BYTES) };
                }
                // SAFETY: takes the zombie that was just seen.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            }
            // Most commands have ended by then, and those that have not are under way.
            None if !ends_soon() => {
                give_back_memory();
                is_small = true;
            }
            None => {}
        }
    }
}

/// A child that has ended and was not reaped.
struct Ended {
    child: i32,
    code: i32,
    status: i32,
}

/// The next one, waiting for it if told to. Does not return when there are no children, and so no descendants.
#[allow(unsafe_code)]
fn next_ended(wait: bool) -> Option<Ended> {
    let options = libc::WEXITED | libc::WNOWAIT | if wait { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call and is of the type the kernel writes.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        if result == 0 {
            // SAFETY: waitid succeeded, so the SIGCHLD fields of the union are the ones set; all zero if none has ended.
            let (child, status) = unsafe { (info.si_pid(), info.si_status()) };
            return (child != 0).then_some(Ended { child, code: info.si_code, status });
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            // SAFETY: ends this process without anything of the agent's running.
            unsafe { libc::_exit(0) };
        }
    }
}

/// Waits a moment for the end of a child, which is a signal that was blocked before there was one.
#[allow(unsafe_code)]
fn ends_soon() -> bool {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: SOON_NANOSECONDS };
    let set = child_signal();
    // SAFETY: the set and the time outlive the call.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const moment) >= 0 }
}

/// The set of signals that tells of children.
#[allow(unsafe_code)]
fn child_signal() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, and made empty by the first call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Closes every descriptor but `kept`: pipes and terminals of commands must not be held open.
#[allow(unsafe_code)]
fn close_all_but(kept: i32) {
    let close = |first: i32, last: u32| {
        // SAFETY: this process uses no descriptor but `kept`.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
    };
    if (kept == 0 || close(0, kept.unsigned_abs() - 1)) && close(kept + 1, u32::MAX) {
        return;
    }
    // A kernel before 5.9, or a filter that does not know the call.
    // SAFETY: asks for a number.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for number in (0..i32::try_from(most).unwrap_or(i32::MAX)).filter(|number| *number != kept) {
        // SAFETY: as above; a number that is not open is an error without effect.
        unsafe { libc::close(number) };
    }
}

/// Unmaps the agent's heap, its buffers and the stacks of its other threads.
#[allow(unsafe_code)]
fn give_back_memory() {
    let mut ranges = [(0_usize, 0_usize); MOST_RANGES];
    let mark = 0_u8;
    let here = std::ptr::from_ref(&mark).expose_provenance();
    let count = private_ranges(here, &mut ranges);
    for (start, end) in ranges.iter().take(count) {
        // SAFETY: of these ranges nothing is used any more: this process has one thread, whose stack and thread-local
        // storage lie in the range that was left out, and what it still runs are system calls.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(*start), end - start) };
    }
}

/// The ranges of memory that belong to this process alone and to no file, but for the one that `here` lies in and those
/// that begin where a file ends: these are the variables of a program or library.
#[allow(unsafe_code)]
fn private_ranges(here: usize, ranges: &mut [(usize, usize); MOST_RANGES]) -> usize {
    // SAFETY: opens a file by a static name.
    let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if maps < 0 {
        return 0;
    }
    let mut buffer = [0_u8; 8192];
    let (mut held, mut count, mut end_of_file_before) = (0, 0, 0);
    loop {
        // SAFETY: reads into what is left of the buffer.
        let length = unsafe { libc::read(maps, buffer[held..].as_mut_ptr().cast(), buffer.len() - held) };
        let Ok(length @ 1..) = usize::try_from(length) else { break };
        let filled = held + length;
        let mut from = 0;
        while let Some(line_end) = buffer[from..filled].iter().position(|byte| *byte == b'\n') {
            if let Some(mapping) = Mapping::parse(&buffer[from..from + line_end]) {
                let holds_us = (mapping.start..mapping.end).contains(&here);
                let variables = mapping.start == end_of_file_before;
                if mapping.is_private && !holds_us && !variables && count < MOST_RANGES {
                    ranges[count] = (mapping.start, mapping.end);
                    count += 1;
                }
                if mapping.is_of_file {
                    end_of_file_before = mapping.end;
                }
            }
            from += line_end + 1;
        }
        buffer.copy_within(from..filled, 0);
        held = filled - from;
        if held == buffer.len() {
            break;
        }
    }
    // SAFETY: closes what was opened above.
    unsafe { libc::close(maps) };
    count
}

/// A line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    /// Writable, not shared, of no file, and without a name: the kernel names what is special.
    is_private: bool,
    is_of_file: bool,
}

impl Mapping {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let mut range = fields.next()?.split(|byte| *byte == b'-');
        let (start, end) = (hexadecimal(range.next()?)?, hexadecimal(range.next()?)?);
        let access = fields.next()?;
        let is_of_file = fields.nth(2)? != b"0";
        let name = fields.next().unwrap_or_default();
        let plain = name.is_empty() || name == b"[heap]" || name.starts_with(b"[anon");
        Some(Self { start, end, is_private: access == b"rw-p" && !is_of_file && plain, is_of_file })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(usize::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: Option<(usize, usize, bool, bool)>) {
        let mapping = Mapping::parse(line.as_bytes());
        assert_eq!(mapping.map(|m| (m.start, m.end, m.is_private, m.is_of_file)), expect, "{line}");
    }

    #[test]
    fn lines_of_maps_are_read() {
        check(
            "00400000-00401000 r--p 00000000 08:02 173521 /bin/x",
            Some((0x0040_0000, 0x0040_1000, false, true)),
        );
        check("7f00-8000 rw-p 00000000 00:00 0 ", Some((0x7f00, 0x8000, true, false)));
        check("7f00-8000 rw-p 00000000 00:00 0      [heap]", Some((0x7f00, 0x8000, true, false)));
        check("7f00-8000 rw-p 00000000 00:00 0      [stack]", Some((0x7f00, 0x8000, false, false)));
        check("7f00-8000 rw-s 00000000 00:01 7 /dev/zero (deleted)", Some((0x7f00, 0x8000, false, true)));
        check("7f00-8000 ---p 00000000 00:00 0", Some((0x7f00, 0x8000, false, false)));
        check("garbage", None);
        check("", None);
    }

    #[test]
    fn what_the_thread_stands_on_is_left_out() {
        let mark = 0_u8;
        let here = std::ptr::from_ref(&mark).expose_provenance();
        let mut ranges = [(0, 0); MOST_RANGES];
        let count = private_ranges(here, &mut ranges);
        assert!(count > 0, "a test has a heap");
        assert!(ranges[..count].iter().all(|(start, end)| !(*start..*end).contains(&here)));
    }
}
