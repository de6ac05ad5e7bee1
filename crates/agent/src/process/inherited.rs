//! Descriptors that whoever started the agent left open for it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// Takes over the descriptor `number`. Call it once for each number, before anything else is opened.
///
/// # Errors
/// No descriptor has that number.
#[allow(unsafe_code)]
pub(crate) fn take(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number; one that is not open is an error.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        let problem = format!("descriptor {number} was not passed to the agent");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: it is open, was opened by whoever started this program, and only this call takes it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Says that connections are accepted from now on.
pub(crate) fn announce(ready: Option<i32>) -> io::Result<()> {
    let Some(number) = ready else { return Ok(()) };
    // Nobody may be waiting any more.
    let _ = rustix::io::write(take(number)?, b"!");
    Ok(())
}

static COMMAND_GROUPS: OnceLock<Vec<OwnedFd>> = OnceLock::new();

/// Says which control groups commands put themselves into.
pub(crate) fn set_command_groups(numbers: &[i32]) -> io::Result<()> {
    let groups = numbers.iter().map(|number| take(*number)).collect::<io::Result<Vec<_>>>()?;
    // The agent runs once in a process.
    let _ = COMMAND_GROUPS.set(groups);
    Ok(())
}

/// Puts the calling process into the control groups of commands. To be called between fork and exec.
pub(super) fn join_command_groups() -> io::Result<()> {
    for group in COMMAND_GROUPS.get().into_iter().flatten() {
        rustix::io::write(group, b"0")?;
    }
    Ok(())
}

/// Keeps what has the same user from reading the agent's memory, tracing it, or opening what it has open. Commands are
/// not affected: a process is open to others again once it has executed a program.
pub(crate) fn keep_from_commands() -> io::Result<()> {
    let behaviour = rustix::process::DumpableBehavior::NotDumpable;
    Ok(rustix::process::set_dumpable_behavior(behaviour)?)
}
