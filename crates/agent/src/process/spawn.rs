//! Starting a command: nicer than the agent, first to die when memory ends, with the limits the agent was started with.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::sync::watch;

use super::family::Family;
use super::reaper::{Exit, Reaper, Registered};
use super::{inherited, keeper};

/// Added to the agent's own niceness.
const NICE: i32 = 10;
/// Read by the kernel when memory ends: commands go before the agent.
const OOM_SCORE_ADJ: &[u8] = b"500";
/// Descriptors that are passed on are first moved above this number, so that no target overwrites a source.
const STAGING_FD: i32 = 200;
/// Descriptors one program can be passed.
const MOST_PASSED: usize = 4;

/// What is started besides the program and its arguments.
pub(crate) struct Launch {
    pub(crate) command: Command,
    /// Descriptors and the numbers they get in the child.
    pub(crate) pass: Vec<(OwnedFd, i32)>,
    /// Make standard input the controlling terminal.
    pub(crate) terminal: bool,
}

/// A process that runs in a session of its own, below a keeper of its own.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) exited: watch::Receiver<Option<Exit>>,
    /// It, and all that it starts.
    pub(crate) family: Family,
}

impl Launch {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, pass: Vec::new(), terminal: false }
    }

    /// Forks and executes. Blocks until the program is executed: call it on the pool.
    #[allow(unsafe_code)]
    pub(crate) fn start(self, reaper: &Reaper) -> std::io::Result<Started> {
        let Self { mut command, pass, terminal } = self;
        if pass.len() > MOST_PASSED {
            return Err(std::io::Error::other(format!("more than {MOST_PASSED} descriptors to pass")));
        }
        let (limit, notes) = (original_open_files(), reaper.notes());
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing
        // is allocated: `pass` is moved in as it is and only iterated.
        unsafe {
            command.pre_exec(move || prepare_child(&pass, terminal, limit, notes));
        }
        // The process that was forked first becomes the keeper; std hears of what keeps the command from being executed.
        // Dropping the handle neither waits nor kills; the reaper does the waiting.
        let Registered { pid, exited, family } = reaper.register(|| Ok(command.spawn()?.id()))?;
        give_up_first(pid);
        Ok(Started { pid, exited, family })
    }
}

fn check(result: i32) -> std::io::Result<i32> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

#[allow(unsafe_code)]
fn prepare_child(pass: &[(OwnedFd, i32)], terminal: bool, limit: Rlimit, notes: i32) -> std::io::Result<()> {
    inherited::join_command_groups()?;
    keeper::split(notes)?;
    rustix::process::setsid()?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    // All are moved out of the way before any gets its number: a source may have another's target number.
    let mut staged = [-1; MOST_PASSED];
    for (slot, (fd, _)) in staged.iter_mut().zip(pass) {
        // SAFETY: a plain system call on a descriptor that is open in this process; the copy is close-on-exec.
        *slot = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, STAGING_FD) })?;
    }
    for (slot, (_, target)) in staged.iter().zip(pass) {
        // SAFETY: as above. What had the target's number is a copy of the parent's that nobody uses here.
        check(unsafe { libc::dup2(*slot, *target) })?;
    }
    // None of these is worth failing for: /proc may be missing or closed to us, the limit may be lowered already.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty()) {
        let _ = rustix::io::write(&file, OOM_SCORE_ADJ);
    }
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    let _ = rustix::process::nice(NICE);
    Ok(())
}

/// As the child does before it executes its program; but its files in /proc are open to us only afterwards, if the
/// agent is an ordinary user. Not worth failing for.
fn give_up_first(pid: Pid) {
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), OOM_SCORE_ADJ);
}

static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();

fn original_open_files() -> Rlimit {
    *OPEN_FILES.get_or_init(|| rustix::process::getrlimit(Resource::Nofile))
}

/// Raises the agent's own limit of open files to what it may have; commands keep the limit they would have had.
pub(crate) fn raise_open_files() {
    let original = original_open_files();
    let raised = Rlimit { current: original.maximum, maximum: original.maximum };
    // The lower limit serves too, with fewer sessions.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// Keeps descriptors that whoever started the agent left open from reaching commands.
#[allow(unsafe_code)]
pub(crate) fn close_inherited_on_exec() {
    // SAFETY: close_range only sets a flag on descriptors here. An old kernel refuses it, and then
    // the agent's own descriptors are still close-on-exec one by one.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}
