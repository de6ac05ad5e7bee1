//! The launcher: a small process with a single thread that makes sandboxes.
//!
//! It serves the server that started it and ends with it; sandboxes stay. It sees its children through the first half
//! of a launch. The second they get from the server, which has heard of them by then, so that none runs unknown; a
//! child whose server has gone, or gave up on it, ends.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, pidfd_send_signal};

use super::child::{self, ChildFds, Prepared, Report};
use super::failure::{Problem, StepFailure};
use super::step::SetupStep;
use super::sys::{self, Forked};
use super::wire::{self, Answer, Exit, MOST_BYTES, Request};
use super::{LAUNCH_DEADLINE, prepare};

/// Serves the server that started it, over standard input, until that ends.
pub(crate) fn run() -> ExitCode {
    match serve() {
        // A server that is gone is no error: sandboxes do without.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => ExitCode::SUCCESS,
        Err(error) => {
            // The server sees the end of the connection; this is for whoever looks for the reason.
            let text = format!("stockade-launcher: {error}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Errno> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    // What is meant for the server's terminal is not meant for us or for sandboxes.
    let _ = rustix::process::setsid();
    let mut buffer = vec![0; MOST_BYTES];
    let Some((Request::Prepare { facts, system, stage, hidden, agent }, _)) =
        wire::receive(socket.as_fd(), &mut buffer)?
    else {
        return Ok(());
    };
    let prepared = match prepare::all(&facts, &system, &stage, &hidden, agent.as_deref()) {
        Ok(prepared) => prepared,
        Err(failure) => return wire::send(socket.as_fd(), &Answer::NotPrepared(failure), &[]),
    };
    let signals = sys::child_signals()?;
    wire::send(socket.as_fd(), &Answer::Prepared, &[])?;
    Launcher { socket, signals, prepared, buffer, unfinished: BTreeMap::new() }.serve()
}

struct Launcher {
    socket: OwnedFd,
    signals: OwnedFd,
    prepared: Prepared,
    buffer: Vec<u8>,
    /// Children that have not said yet what came of it, by their process ids. The server bounds how many.
    unfinished: BTreeMap<i32, Unfinished>,
}

/// A sandbox that is being set up.
struct Unfinished {
    number: u64,
    pidfd: OwnedFd,
    report: OwnedFd,
    heard: Vec<u8>,
    started: Instant,
}

impl Launcher {
    fn serve(mut self) -> Result<(), Errno> {
        loop {
            let (asked, signalled, reported) = self.wait()?;
            for pid in reported {
                self.hear(pid)?;
            }
            if signalled {
                self.reap()?;
            }
            if asked {
                match wire::receive(self.socket.as_fd(), &mut self.buffer)? {
                    None => return Ok(()),
                    Some((Request::Launch { number, steps, join, commands }, fds)) => {
                        self.launch(number, &steps, fds, join, commands)?;
                    }
                    Some((Request::Prepare { .. }, _)) => return Err(Errno::BADMSG),
                }
            }
            self.give_up_on_late_ones();
        }
    }

    /// What happened: a request, the end of children, reports of these.
    fn wait(&self) -> Result<(bool, bool, Vec<i32>), Errno> {
        let mut polled =
            vec![PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        polled.extend(self.unfinished.values().map(|child| PollFd::new(&child.report, PollFlags::IN)));
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let timeout = (!self.unfinished.is_empty()).then_some(&second);
        rustix::io::retry_on_intr(|| poll(&mut polled, timeout))?;
        let happened: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let reported = self.unfinished.keys().zip(happened.iter().skip(2));
        let reported = reported.filter(|(_, happened)| **happened).map(|(pid, _)| *pid).collect();
        let at = |place: usize| happened.get(place).copied().unwrap_or(false);
        Ok((at(0), at(1), reported))
    }

    fn launch(
        &mut self,
        number: u64,
        steps: &[SetupStep],
        fds: Vec<OwnedFd>,
        join: usize,
        commands: usize,
    ) -> Result<(), Errno> {
        match self.fork(number, steps, fds, join, commands) {
            Ok((pid, unfinished)) => {
                self.unfinished.insert(pid, unfinished);
                Ok(())
            }
            Err(errno) => {
                let failure = Problem::from(errno).of(&"start the sandbox's first process");
                wire::send(self.socket.as_fd(), &Answer::Failed { number, failure }, &[])
            }
        }
    }

    #[allow(unsafe_code)]
    fn fork(
        &self,
        number: u64,
        steps: &[SetupStep],
        fds: Vec<OwnedFd>,
        join: usize,
        commands: usize,
    ) -> Result<(i32, Unfinished), Errno> {
        if fds.len() != 1 + join + commands {
            return Err(Errno::BADMSG);
        }
        let mut fds = fds.into_iter();
        let Some(channel) = fds.next() else { return Err(Errno::BADMSG) };
        let join: Vec<OwnedFd> = fds.by_ref().take(join).collect();
        let commands = fds.collect();
        let (report, child_report) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: this process has a single thread.
        match unsafe { sys::fork_into_process_namespace() }? {
            Forked::Child => {
                // Otherwise it would hear itself when the launcher is gone.
                drop(report);
                let fds = ChildFds { channel, join, commands, report: child_report };
                self.forget_in_child();
                child::run(&self.prepared, fds, steps)
            }
            Forked::Parent(pid, pidfd) => {
                let (heard, started) = (Vec::new(), Instant::now());
                Ok((pid, Unfinished { number, pidfd, report, heard, started }))
            }
        }
    }

    /// A child has no business with the server or with other children; their ends of pipes must not stay open in it.
    #[allow(unsafe_code)]
    fn forget_in_child(&self) {
        use std::os::fd::AsRawFd;
        let others = self.unfinished.values().flat_map(|child| [&child.pidfd, &child.report]);
        for fd in others.chain([&self.socket, &self.signals]) {
            // SAFETY: this process ends without dropping the launcher's state, so that nothing closes them again.
            unsafe { libc::close(fd.as_raw_fd()) };
        }
    }

    /// Reads what a child says; at the end of it the child is waited for elsewhere.
    fn hear(&mut self, pid: i32) -> Result<(), Errno> {
        let Some(child) = self.unfinished.get_mut(&pid) else { return Ok(()) };
        let mut piece = [0; 4096];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&child.report, &mut piece))?;
        child.heard.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count > 0 && child.heard.last() != Some(&b'\n') {
            return Ok(());
        }
        let Some(child) = self.unfinished.remove(&pid) else { return Ok(()) };
        let report = serde_json::from_slice(&child.heard).unwrap_or_else(|_| died());
        self.conclude(pid, child, report)
    }

    fn conclude(&self, pid: i32, child: Unfinished, report: Report) -> Result<(), Errno> {
        let number = child.number;
        match report {
            Report::Failed(failure) => {
                wire::send(self.socket.as_fd(), &Answer::Failed { number, failure }, &[])
            }
            Report::Prepared => {
                let answer = Answer::Launched { number, pid, start_time: start_time(pid) };
                wire::send(self.socket.as_fd(), &answer, &[child.pidfd.as_fd()])
            }
        }
    }

    fn reap(&mut self) -> Result<(), Errno> {
        let mut ignored = [0; 128];
        while matches!(rustix::io::read(&self.signals, &mut ignored), Ok(count) if count > 0) {}
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error),
            };
            let pid = pid.as_raw_nonzero().get();
            // Its report may not have been read yet.
            while self.unfinished.contains_key(&pid) {
                self.hear(pid)?;
            }
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or(0)),
            };
            wire::send(self.socket.as_fd(), &Answer::Exited { pid, exit }, &[])?;
        }
    }

    /// The end of a killed child is heard of as of any other.
    fn give_up_on_late_ones(&self) {
        for child in self.unfinished.values().filter(|child| child.started.elapsed() > LAUNCH_DEADLINE) {
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        }
    }
}

fn died() -> Report {
    Report::Failed(StepFailure {
        step: "wait for the sandbox's first process".to_owned(),
        path: None,
        errno: libc::ESRCH,
        hint: Some(
            "it was killed while it set the sandbox up: by its memory limit, or because it took too long"
                .to_owned(),
        ),
    })
}

/// When the process started, in clock ticks since boot: with its number it names the process for good.
fn start_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// How long a child may be late before its launcher notices.
pub(super) const NOTICE: Duration = Duration::from_secs(2);
