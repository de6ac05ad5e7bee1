//! The task that owns one bash: reads its terminal and its status lines, keeps the deadlines of the
//! command in progress, and says when bash itself has ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::session::Session;
use super::state::{Ending, EndingSteps, Execution, Question, Status};
use super::terminal::Terminal;
use super::{ending, input, leftover};
use crate::process::{Exit, ended};

/// The kernel hands out at most this much of a terminal at once.
const READ: usize = 4096;
/// Reads in a row before other sessions get their turn.
const BURST: usize = 16;
/// More than the kernel buffers of one terminal: what a command printed before its status line is
/// within, and a background job that never stops printing cannot hold up the answer.
const DRAIN: usize = 256 * 1024;
/// The status pipe carries a few bytes a command.
const STATUS_LINE: usize = 4096;
/// Between two attempts to end a command.
const STEP: Duration = Duration::from_millis(100);
/// Between two looks at a command that seems to wait for input.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// After this long bash itself is killed.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn drive(session: Arc<Session>, terminal: Arc<Terminal>) {
    let mut exited = terminal.exited.clone();
    let mut buffer = vec![0; READ];
    let mut pending = Vec::new();
    let (mut terminal_open, mut status_open) = (true, true);
    loop {
        let deadline = next_deadline(&session);
        tokio::select! {
            ready = terminal.master.readable(), if terminal_open => {
                let Ok(mut guard) = ready else { break };
                match guard.try_io(|_| read_burst(&session, &terminal, &mut buffer)) {
                    Ok(Ok(open)) => terminal_open = open,
                    Ok(Err(_)) => terminal_open = false,
                    Err(_would_block) => {}
                }
                drop(guard);
                tokio::task::yield_now().await;
            }
            ready = terminal.status.readable(), if status_open => {
                let Ok(mut guard) = ready else { break };
                match guard.try_io(|fd| read_status(fd.get_ref(), &mut pending)) {
                    Ok(Ok(open)) => status_open = open,
                    Ok(Err(_)) => status_open = false,
                    Err(_would_block) => {}
                }
                drop(guard);
                for line in take_lines(&mut pending) {
                    handle_status(&session, &terminal, &line, &mut buffer).await;
                }
            }
            () = sleep_until(deadline), if deadline.is_some() => {
                match on_deadline(&session, &terminal) {
                    Due::Nothing => {}
                    Due::Ending(step) => press(&session, &terminal, step).await,
                    Due::Look => look_for_question(&session, &terminal).await,
                }
            }
            () = session.poked() => {}
            exit = ended(&mut exited) => {
                on_exit(&session, &terminal, exit, &mut buffer).await;
                break;
            }
        }
    }
    if session.is_current(&terminal) {
        on_exit(&session, &terminal, None, &mut buffer).await;
    }
    // The session may go, what it has left running need not.
    drop((session, buffer));
    leftover::keep(terminal).await;
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Reads what is there, up to a burst. `Ok(false)`: the terminal is closed.
fn read_burst(session: &Session, terminal: &Terminal, buffer: &mut [u8]) -> io::Result<bool> {
    for _ in 0..BURST {
        match terminal.read_now(buffer)? {
            0 => return Ok(false),
            length => feed(session, &buffer[..length]),
        }
    }
    Ok(true)
}

fn feed(session: &Session, bytes: &[u8]) {
    if let Some(last) = session.last() {
        last.lock().feed(bytes);
        session.announce_output();
    }
}

/// The kernel makes everything written before visible to a read that would otherwise find nothing,
/// so reading until then leaves no output behind.
fn drain(session: &Session, terminal: &Terminal, buffer: &mut [u8]) {
    let mut left = DRAIN;
    while left > 0 {
        match terminal.read_now(buffer) {
            Ok(length) if length > 0 => {
                feed(session, &buffer[..length]);
                left = left.saturating_sub(length);
            }
            _ => return,
        }
    }
}

fn read_status(fd: &std::os::fd::OwnedFd, pending: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 512];
    let length = rustix::io::read(fd, &mut chunk)?;
    pending.extend_from_slice(&chunk[..length]);
    // Nothing of ours is that long: somebody else wrote into the pipe.
    if pending.len() > STATUS_LINE {
        pending.clear();
    }
    Ok(length > 0)
}

fn take_lines(pending: &mut Vec<u8>) -> Vec<String> {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let complete: Vec<u8> = pending.drain(..=end).collect();
    String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect()
}

async fn handle_status(session: &Arc<Session>, terminal: &Arc<Terminal>, line: &str, buffer: &mut [u8]) {
    if line == "L" {
        terminal.nudge();
        return;
    }
    let Some((number, code)) = parse_end(line) else { return };
    complete_ending(session, terminal).await;
    drain(session, terminal, buffer);
    session.note_directory(terminal);
    if let Some(last) = session.last() {
        let mut last = last.lock();
        if last.number == number && last.is_live() {
            last.finish(Status::Completed, Some(code));
        }
    }
    session.announce();
}

/// `E <number> <code>`.
fn parse_end(line: &str) -> Option<(u64, i32)> {
    let (number, code) = line.strip_prefix("E ")?.split_once(' ')?;
    Some((number.parse().ok()?, code.parse().ok()?))
}

async fn on_exit(session: &Arc<Session>, terminal: &Arc<Terminal>, exit: Option<Exit>, buffer: &mut [u8]) {
    if session.is_current(terminal) {
        complete_ending(session, terminal).await;
    }
    drain(session, terminal, buffer);
    if session.is_current(terminal) {
        if let Some(last) = session.last() {
            let mut last = last.lock();
            if last.is_live() {
                match exit {
                    Some(Exit::Code(code)) => last.finish(Status::Completed, Some(code)),
                    Some(Exit::Signal(_)) | None => last.finish(Status::Terminated, None),
                }
            }
        }
        session.shell_ended(terminal);
    }
    session.announce();
}

fn next_deadline(session: &Session) -> Option<Instant> {
    let last = session.last()?;
    let last = last.lock();
    if !last.is_live() {
        return None;
    }
    if let Some(ending) = last.ending {
        return Some(ending.next);
    }
    let silent = (last.status == Status::Running).then(|| silent_at(&last)).flatten();
    [silent, last.hard_deadline, Some(last.watch.next)].into_iter().flatten().min()
}

/// A time-out too long for the clock never comes.
fn silent_at(execution: &Execution) -> Option<Instant> {
    execution.last_output.checked_add(execution.no_change)
}

/// What takes time, and is due.
enum Due {
    Nothing,
    /// A step in ending the command.
    Ending(EndingSteps),
    /// A look whether the command waits for input.
    Look,
}

/// Does what is due, and returns what takes time.
fn on_deadline(session: &Arc<Session>, terminal: &Arc<Terminal>) -> Due {
    let now = Instant::now();
    let Some(last) = session.last() else { return Due::Nothing };
    let mut last = last.lock();
    if !last.is_live() {
        return Due::Nothing;
    }
    if let Some(ending) = &mut last.ending {
        if now < ending.next {
            return Due::Nothing;
        }
        if ending.taken == 0 {
            let front = terminal.foreground().filter(|front| *front != terminal.pid);
            ending.front = front.map(|front| front.as_raw_nonzero().get());
        }
        let step = *ending;
        ending.taken += 1;
        ending.next = now + STEP;
        return Due::Ending(step);
    }
    let mut due = Due::Nothing;
    if now >= last.watch.next {
        if last.watch.seen(terminal.is_adrift(), now) {
            terminal.recall();
        }
        if now.duration_since(last.last_output) >= Question::QUIET {
            due = Due::Look;
        }
    }
    if last.hard_deadline.is_some_and(|deadline| now >= deadline) {
        drop(last);
        session.end_current(Ending::HardTimeout);
    } else if last.status == Status::Running && silent_at(&last).is_some_and(|deadline| now >= deadline) {
        last.status = Status::NoChangeTimeout;
        drop(last);
        session.announce();
    }
    due
}

/// Looks whether the command waits for input.
async fn look_for_question(session: &Session, terminal: &Arc<Terminal>) {
    let Some(last) = session.last() else { return };
    let (number, printed) = {
        let last = last.lock();
        (last.number, last.output.total())
    };
    let looked_at = Arc::clone(terminal);
    let awaited = session.pool().run(move || input::is_awaited(&looked_at)).await.unwrap_or(false);
    let news = {
        let mut last = last.lock();
        // What was printed or ended meanwhile asks for another look.
        let is_same = last.is_live() && last.number == number && last.output.total() == printed;
        let now = Instant::now();
        if is_same && awaited {
            last.watch.hasten(now, LOOK_AGAIN);
        }
        is_same && last.question.take(awaited, now)
    };
    if news {
        session.announce();
    }
}

/// One attempt to end the command: first as Ctrl-C would, so that bash gives up the rest of its command line and lives
/// on; then by killing all it has started; at last bash itself.
async fn press(session: &Session, terminal: &Arc<Terminal>, step: EndingSteps) {
    let shell = terminal.pid;
    if step.taken == 0 {
        let front = terminal.foreground().unwrap_or(shell);
        let _ = rustix::process::kill_process_group(front, Signal::INT);
        let _ = rustix::process::kill_process_group(front, Signal::CONT);
        return;
    }
    complete_ending(session, terminal).await;
    if step.since.elapsed() >= PATIENCE {
        session.reaper().signal(shell, Signal::KILL);
    } else if terminal.foreground().is_none_or(|front| front == shell) {
        if step.taken == 1 {
            terminal.recall();
        } else {
            session.reaper().signal(shell, Signal::INT);
        }
    }
}

/// Ends all that the command has started, if it is being ended.
async fn complete_ending(session: &Session, terminal: &Arc<Terminal>) {
    let Some((front, spared)) = session.last().and_then(|last| {
        let last = last.lock();
        let ending = last.ending.filter(|_| last.is_live())?;
        Some((ending.front, Arc::clone(&last.spared)))
    }) else {
        return;
    };
    let (reaper, terminal) = (session.reaper().clone(), Arc::clone(terminal));
    let end = move || ending::end_command(&terminal, &reaper, &spared, front);
    // A pool that is overrun has this left undone; the next step, or the end of the session, comes back to it.
    let _ = session.pool().run(end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_status_lines_are_taken() {
        let mut pending = b"E 1 0\nE 2".to_vec();
        assert_eq!(take_lines(&mut pending), ["E 1 0"]);
        assert_eq!(pending, b"E 2");
        assert_eq!(parse_end("E 12 130"), Some((12, 130)));
        for other in ["E  0", "E x 1", "L", "", "E 1", "E 1 2 3"] {
            assert_eq!(parse_end(other), None, "{other}");
        }
    }
}
