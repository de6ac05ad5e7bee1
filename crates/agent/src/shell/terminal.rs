//! One bash on a pseudo-terminal, and how it is told what to run.
//!
//! Commands do not go through the terminal, and neither do their exit codes, so nothing a command
//! prints, reads or leaves unread can disturb the framing:
//!
//! ```text
//!   agent ── command text ──► memfd (100) ─┐
//!   agent ── number ────────► pipe  (101) ─┤► bash: eval "$text"
//!   agent ◄─ E number code ── pipe  (102) ─┘
//!   agent ◄─ what the command prints ──── terminal ──► what `write` sends
//! ```
//!
//! bash is interactive and runs `boot.sh` as its `PROMPT_COMMAND`: a loop that takes a command,
//! evaluates it and reports. Whatever throws bash out of the loop (Ctrl-C, an unbound variable)
//! ends at the next prompt, which runs it again; it then reports first. It is the second element of
//! the variable, because who assigns to it replaces the first. A command that breaks out of
//! the loop (`break 9`) is reported with `L`, and a line feed typed into the terminal brings the
//! next prompt. The descriptors are closed while a command runs, so no child inherits them.
//!
//! `DEBUG` and `ERR` traps are put aside between two commands and set again as the first act of the
//! next, so that what the loop itself does is no error of the user's.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, OFlags, SeekFrom};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, Winsize,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::process::{Exit, Family, Launch, Reaper, Started, tree};

const BOOT: &str = include_str!("boot.sh");
const COMMAND_FD: i32 = 100;
const GO_FD: i32 = 101;
const STATUS_FD: i32 = 102;
const COLUMNS: u16 = 200;
const ROWS: u16 = 50;

/// A running bash with its terminal.
pub(crate) struct Terminal {
    /// Our end of the terminal: what commands print, and where input goes.
    pub(crate) master: AsyncFd<OwnedFd>,
    /// Lines of the status protocol.
    pub(crate) status: AsyncFd<OwnedFd>,
    slave: OwnedFd,
    command: OwnedFd,
    go: OwnedFd,
    pub(crate) pid: Pid,
    pub(crate) exited: watch::Receiver<Option<Exit>>,
    /// bash, and all that it has started.
    pub(crate) family: Family,
    /// A command was handed to it.
    used: AtomicBool,
}

/// How to start a bash.
pub(crate) struct BashSpec<'a> {
    pub(crate) program: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) environment: &'a [(OsString, OsString)],
}

/// Descriptors and process made on the pool, before they are registered with the runtime.
pub(crate) struct RawTerminal {
    master: OwnedFd,
    slave: OwnedFd,
    command: OwnedFd,
    go: OwnedFd,
    status: OwnedFd,
    started: Started,
}

/// Opens a terminal pair. The master is non-blocking.
pub(crate) fn open_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK)?;
    Ok((master, slave))
}

/// Sets the size of the window programs see.
pub(crate) fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Drops input that no program has read, as the terminal does with what was typed before an interrupt. `false`: the
/// program in front takes interrupts as input like any other.
pub(crate) fn drop_unread(master: impl AsFd) -> io::Result<bool> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(master, flags)?;
    let interrupts = rustix::termios::tcgetattr(&slave)?.local_modes.contains(LocalModes::ISIG);
    if interrupts {
        rustix::termios::tcflush(&slave, QueueSelector::IFlush)?;
    }
    Ok(interrupts)
}

/// Opens a terminal and starts bash on it. Blocks for a fork: call it on the pool.
pub(crate) fn start(spec: &BashSpec<'_>, reaper: &Reaper) -> io::Result<RawTerminal> {
    let (master, slave) = open_pair()?;
    quieten(&slave)?;
    resize(&slave, COLUMNS, ROWS)?;
    let command = rustix::fs::memfd_create("stockade-command", MemfdFlags::CLOEXEC)?;
    let (go_read, go) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (status, status_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&status, OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&go, OFlags::NONBLOCK)?;

    let mut bash = Command::new(spec.program);
    bash.arg0_bash().args(["--noprofile", "--norc", "--noediting", "-i"]);
    bash.current_dir(spec.directory).env_clear().envs(spec.environment.iter().map(|(k, v)| (k, v)));
    bash.env("PS1", "").env("PS2", "").env("PROMPT_COMMAND", BOOT);
    bash.env("TERM", "dumb").env("PAGER", "cat").env("GIT_PAGER", "cat");
    bash.stdin(Stdio::from(slave.try_clone()?));
    bash.stdout(Stdio::from(slave.try_clone()?)).stderr(Stdio::from(slave.try_clone()?));
    let mut launch = Launch::new(bash);
    launch.terminal = true;
    launch.pass = vec![(command.try_clone()?, COMMAND_FD), (go_read, GO_FD), (status_write, STATUS_FD)];
    let started = launch.start(reaper)?;
    Ok(RawTerminal { master, slave, command, go, status, started })
}

trait Arg0Bash {
    fn arg0_bash(&mut self) -> &mut Self;
}

impl Arg0Bash for Command {
    /// Error messages begin with `bash:`, not with the path of the program.
    fn arg0_bash(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.arg0("bash")
    }
}

/// No echo, no translation of line ends, no flow control; Ctrl-C and the line discipline stay.
fn quieten(slave: &OwnedFd) -> io::Result<()> {
    let mut modes = rustix::termios::tcgetattr(slave)?;
    modes.local_modes |= LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
    modes.local_modes -= LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK | LocalModes::ECHOCTL;
    modes.local_modes -= LocalModes::ECHOKE | LocalModes::TOSTOP;
    modes.output_modes -= OutputModes::OPOST;
    modes.input_modes -= InputModes::IXON | InputModes::IXOFF | InputModes::IXANY;
    modes.input_modes |= InputModes::ICRNL | InputModes::IUTF8;
    modes.control_modes |= ControlModes::CREAD;
    Ok(rustix::termios::tcsetattr(slave, OptionalActions::Now, &modes)?)
}

impl Terminal {
    /// Registers the descriptors with the runtime that calls this.
    pub(crate) fn adopt(raw: RawTerminal) -> io::Result<Self> {
        Ok(Self {
            master: watch_descriptor(raw.master)?,
            status: watch_descriptor(raw.status)?,
            slave: raw.slave,
            command: raw.command,
            go: raw.go,
            pid: raw.started.pid,
            exited: raw.started.exited,
            family: raw.started.family,
            used: AtomicBool::new(false),
        })
    }

    /// Hands `text` to bash under `number`. Input that earlier commands left unread is dropped.
    pub(crate) fn run(&self, number: u64, text: &str) -> io::Result<()> {
        self.used.store(true, Ordering::Relaxed);
        // A command may have left the terminal raw or with echo.
        quieten(&self.slave)?;
        rustix::termios::tcflush(&self.slave, QueueSelector::IFlush)?;
        rustix::fs::ftruncate(&self.command, 0)?;
        write_all_at(&self.command, text.as_bytes())?;
        write_all_at_offset(&self.command, b"\0", text.len() as u64)?;
        // bash shares the file offset, and waits for the number before it reads.
        rustix::fs::seek(&self.command, SeekFrom::Start(0))?;
        rustix::io::write(&self.go, format!("{number}\n").as_bytes())?;
        Ok(())
    }

    /// Drops unread input and types a line feed, which brings bash back into its loop.
    pub(crate) fn nudge(&self) {
        self.enter(b"\n");
    }

    /// Brings bash back into its loop when a command has removed what a prompt runs. What is not at its
    /// prompt does not read it, or is being ended anyway.
    pub(crate) fn recall(&self) {
        self.enter(b"eval \"$__stockade_boot\"\n");
    }

    fn enter(&self, line: &[u8]) {
        let _ = quieten(&self.slave);
        let _ = rustix::termios::tcflush(&self.slave, QueueSelector::IFlush);
        let _ = rustix::io::write(self.master.get_ref(), line);
    }

    /// The number of its device.
    pub(super) fn device(&self) -> io::Result<u64> {
        super::input::device_of(&self.slave)
    }

    /// The process group that reads the terminal now: bash itself, or the command in front.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        rustix::termios::tcgetpgrp(self.master.get_ref()).ok()
    }

    /// What is there to read now: the number of bytes, 0 at the end of the terminal. `WouldBlock`: nothing yet.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(self.master.get_ref(), buffer) {
            // The kernel's word for a terminal that nobody holds any more.
            Err(rustix::io::Errno::IO) => Ok(0),
            other => Ok(other?),
        }
    }

    /// Whether bash has taken its command, runs it no longer, and waits: it holds the status pipe, which is
    /// closed in it while a command runs. Seen for longer than the loop takes for its own affairs, bash is
    /// at a prompt that does not lead back into the loop.
    pub(crate) fn is_adrift(&self) -> bool {
        let pid = self.pid.as_raw_nonzero();
        let taken = rustix::fs::tell(&self.command).is_ok_and(|offset| offset > 0);
        let Ok(pipe) = rustix::fs::fstat(self.status.get_ref()) else { return false };
        let holds = std::fs::read_link(format!("/proc/{pid}/fd/{STATUS_FD}"))
            .is_ok_and(|target| target.as_os_str() == format!("pipe:[{}]", pipe.st_ino).as_str());
        taken && holds && self.foreground() == Some(self.pid) && tree::is_asleep(self.pid)
    }

    /// No command has started anything that still runs. Two short files of the kernel; a kernel without them is asked otherwise.
    pub(crate) fn is_alone(&self) -> bool {
        // What bash starts while it begins is none.
        if !self.used.load(Ordering::Relaxed) {
            return true;
        }
        let shell = self.pid.as_raw_nonzero().get();
        match (tree::children(self.family.keeper()), tree::children(shell)) {
            (Some(kept), Some(started)) => kept == [shell] && started.is_empty(),
            _ => self.family.members().iter().all(|member| member.pid == shell),
        }
    }

    /// Where bash is, with symbolic links resolved.
    pub(crate) fn directory(&self) -> Option<std::path::PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.pid.as_raw_nonzero())).ok()
    }
}

/// Registers a descriptor with the runtime that calls this.
#[allow(unsafe_code)]
pub(crate) fn watch_descriptor(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always answers with the one descriptor it owns until it is dropped, and
    // `AsyncFd` takes it out of the poll set before that.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

fn write_all_at(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    write_all_at_offset(fd, bytes, 0)
}

fn write_all_at_offset(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(fd, bytes, offset)?;
        offset += written as u64;
        bytes = &bytes[written..];
    }
    Ok(())
}
