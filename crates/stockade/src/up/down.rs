//! `stockade down`: the end of all sandboxes of this machine.

use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stockade_embedded::backend::{check_down, down};
use stockade_embedded::facts::MachineFacts;

use crate::backend::enter_namespaces;
use crate::state::{ServerRecord, StateDir};

/// How long the server may take to end: it lets requests under way finish.
const SERVER: Duration = Duration::from_secs(10);

/// Ends all sandboxes of the state directory, the server that runs on it, and everything that outlived it. Looks
/// first whether that is possible: half an end would leave sandboxes without a server.
///
/// # Errors
/// When something cannot be ended or removed.
pub(crate) fn run(dir: &Path, purge: bool, yes: bool) -> anyhow::Result<ExitCode> {
    if !dir.try_exists().with_context(|| format!("cannot look at {}", dir.display()))? {
        writeln!(io::stdout(), "there is no {}: nothing to end", dir.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let server = StateDir::at(dir).server();
    check_down(dir, purge, server.as_ref().map(|server| server.pid))?;
    if purge && !yes && !agreed(dir)? {
        writeln!(io::stderr(), "stockade: nothing was ended or removed")?;
        return Ok(ExitCode::FAILURE);
    }
    let process = server.as_ref().map(open_process).transpose()?.flatten();
    // Before the server ends: who may not do it ends nothing.
    enter_namespaces(dir)?;
    if let (Some(server), Some(process)) = (&server, &process) {
        end_server(server, process)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(down(dir, &MachineFacts::probe(), purge));
    let count = ended.with_context(|| {
        let server = if process.is_some() { "the server has ended, but " } else { "" };
        format!("{server}not everything of {} could be ended; the same command goes on", dir.display())
    })?;
    let also = if purge { format!("; {} is removed", dir.display()) } else { String::new() };
    let noun = if count == 1 { "sandbox" } else { "sandboxes" };
    writeln!(io::stdout(), "{count} {noun} ended{also}")?;
    Ok(ExitCode::SUCCESS)
}

/// Asks whether the directory may be removed.
fn agreed(dir: &Path) -> anyhow::Result<bool> {
    let dir = dir.display();
    if !io::stdin().is_terminal() {
        bail!(
            "--purge removes {dir} with all files of threads that lie there, and nobody can be asked here: say --yes too"
        );
    }
    write!(
        io::stderr(),
        "All sandboxes of {dir} end, and it is removed with the key and all files of threads that lie there. \
         Go on? [y/N] "
    )?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The server's process; `None` when it has ended meanwhile.
fn open_process(server: &ServerRecord) -> anyhow::Result<Option<OwnedFd>> {
    let pid = Pid::from_raw(server.pid).context("the number of the server's process is none")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error).context("the server's process cannot be opened"),
    }
}

/// Asks the server to end, and waits until it has: while it runs, it would start what ends.
fn end_server(server: &ServerRecord, process: &OwnedFd) -> anyhow::Result<()> {
    match pidfd_send_signal(process, Signal::TERM) {
        // It may have ended before this.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("the server (process {}) cannot be asked to end", server.pid));
        }
    }
    let deadline = Instant::now() + SERVER;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).context("a time to wait")?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => bail!("the server (process {}) does not end; end it with kill -9 {0}", server.pid),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the server to end"),
        }
    }
}
