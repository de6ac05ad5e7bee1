//! One command of a bash session: its process, its output so far, its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::backpressure::{Attention, Backpressure, Reader, UNREAD};
use super::start::{full_text, launch};
use crate::kills::{Verdict, Watch};
use crate::output::{Output, Piece};
use crate::process::{Exit, Family, Started, ended};
use crate::shell::Surroundings;

/// Between asking a command to end and ending it.
const KILL_GRACE: Duration = Duration::from_millis(500);
const READ: usize = 64 * 1024;
/// What a pipe can hold, which is all that can be left when the process has ended.
const LAST_READ: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommandStatus {
    Running,
    Completed,
    TimedOut,
    Killed,
}

pub(crate) struct BashCommand {
    pub(crate) id: String,
    pub(crate) text: String,
    pid: Pid,
    /// It, and all that it starts.
    family: Family,
    state: Mutex<State>,
    stdin: tokio::sync::Mutex<Option<pipe::Sender>>,
    changed: watch::Sender<u64>,
    /// Of a command that waits for its reader.
    backpressure: Option<Backpressure>,
}

struct State {
    stdout: Output,
    stderr: Output,
    status: CommandStatus,
    exit_code: Option<i32>,
    /// What the status becomes when the process ends, unless it ends by itself.
    cause: Option<CommandStatus>,
    memory: Watch,
    /// What is said of its end when memory was short.
    verdict: Option<Verdict>,
}

/// Output from given offsets on: text, or bytes as they were written.
pub(crate) struct Reading<T = String> {
    pub(crate) stdout: T,
    pub(crate) stderr: T,
    pub(crate) offset: u64,
    pub(crate) stderr_offset: u64,
    pub(crate) status: CommandStatus,
    pub(crate) exit_code: Option<i32>,
    /// What is said of its end when memory was short.
    pub(crate) verdict: Option<Verdict>,
}

/// What to run, and how.
pub(crate) struct BashOrder {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) directory: std::path::PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) snapshot: Option<std::path::PathBuf>,
    pub(crate) hard: Option<Duration>,
    /// Nothing of its output is dropped: it waits for its reader.
    pub(crate) backpressure: bool,
}

impl BashCommand {
    /// Starts the command and the task that reads it.
    pub(crate) async fn start(order: BashOrder, surroundings: &Arc<Surroundings>) -> io::Result<Arc<Self>> {
        let BashOrder { id, text, directory, environment, snapshot, hard, backpressure } = order;
        let memory = surroundings.kills.watch();
        let (shared, script) = (Arc::clone(surroundings), full_text(&text, snapshot.as_deref()));
        let started = surroundings.pool.run(move || launch(&script, &directory, &environment, &shared));
        let (started, pipes) =
            started.await.map_err(|error| io::Error::other(error.message().to_owned()))??;
        let stdin = pipe::Sender::from_owned_fd(pipes.stdin)?;
        let stdout = pipe::Receiver::from_owned_fd(pipes.stdout)?;
        let stderr = pipe::Receiver::from_owned_fd(pipes.stderr)?;
        let command = Arc::new(Self {
            id,
            text,
            pid: started.pid,
            family: started.family.clone(),
            state: Mutex::new(State {
                stdout: Output::new(&surroundings.budget),
                stderr: Output::new(&surroundings.budget),
                status: CommandStatus::Running,
                exit_code: None,
                cause: None,
                memory,
                verdict: None,
            }),
            stdin: tokio::sync::Mutex::new(Some(stdin)),
            changed: watch::Sender::new(0),
            backpressure: backpressure.then(Backpressure::new),
        });
        let deadline = hard.and_then(|hard| Instant::now().checked_add(hard));
        tokio::spawn(drive(
            Arc::clone(&command),
            Arc::clone(surroundings),
            started,
            stdout,
            stderr,
            deadline,
        ));
        Ok(command)
    }

    pub(crate) fn status(&self) -> CommandStatus {
        self.state.lock().status
    }

    pub(crate) fn read(&self, offset: u64, stderr_offset: u64) -> Reading {
        let state = self.state.lock();
        let complete = state.status != CommandStatus::Running;
        let stdout = state.stdout.read_from(offset, complete);
        let stderr = state.stderr.read_from(stderr_offset, complete);
        reading(&state, stdout, stderr)
    }

    /// As [`Self::read`], with the bytes as they were written.
    pub(crate) fn read_bytes(&self, offset: u64, stderr_offset: u64) -> Reading<Vec<u8>> {
        let state = self.state.lock();
        reading(&state, state.stdout.bytes_from(offset), state.stderr.bytes_from(stderr_offset))
    }

    /// How much was written to each stream so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.stdout.total(), state.stderr.total())
    }

    /// Somebody has read up to these offsets.
    pub(crate) fn read_to(&self, offset: u64, stderr_offset: u64) {
        if let Some(backpressure) = &self.backpressure {
            backpressure.read_to(offset, stderr_offset);
        }
    }

    /// Somebody asks about its output, until this is dropped.
    pub(crate) fn attention(&self) -> Option<Attention<'_>> {
        self.backpressure.as_ref().map(Backpressure::attention)
    }

    /// How many bytes of a stream may be read from its pipe now.
    fn room(&self, reader: Option<Reader>, stream: Stream) -> usize {
        let Some(reader) = reader else { return READ };
        let mut state = self.state.lock();
        match stream {
            Stream::Out => state.stdout.room_after(reader.stdout, READ, UNREAD),
            Stream::Err => state.stderr.room_after(reader.stderr, READ, UNREAD),
        }
    }

    /// Everything kept, with a note where something was dropped.
    pub(crate) fn whole(&self) -> Reading {
        let state = self.state.lock();
        Reading {
            stdout: state.stdout.text(),
            stderr: state.stderr.text(),
            offset: state.stdout.total(),
            stderr_offset: state.stderr.total(),
            status: state.status,
            exit_code: state.exit_code,
            verdict: state.verdict.clone(),
        }
    }

    /// The next pieces of standard output and standard error. `end` is set where the streams are when the command
    /// has ended, or when it is too `late` to wait for that.
    pub(crate) fn pieces(
        &self,
        from: [u64; 2],
        end: &mut Option<[u64; 2]>,
        late: bool,
        limit: usize,
    ) -> [Piece<String>; 2] {
        let state = self.state.lock();
        let complete = state.status != CommandStatus::Running;
        if end.is_none() && (complete || late) {
            *end = Some([state.stdout.total(), state.stderr.total()]);
        }
        let piece =
            |stream: &Output, at: usize| stream.piece_from(from[at], end.map(|end| end[at]), limit, complete);
        [piece(&state.stdout, 0), piece(&state.stderr, 1)]
    }

    /// Changes whenever the command prints or ends.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits for the end of the command, or until `deadline`.
    pub(crate) async fn ended(&self, deadline: Option<Instant>) {
        self.wait_until(deadline, || self.status() != CommandStatus::Running).await;
    }

    /// Waits for output beyond the offsets, the end of the command, or until `deadline`.
    pub(crate) async fn news(&self, offset: u64, stderr_offset: u64, deadline: Instant) {
        let news = || {
            let state = self.state.lock();
            let more = state.stdout.total() > offset || state.stderr.total() > stderr_offset;
            more || state.status != CommandStatus::Running
        };
        self.wait_until(Some(deadline), news).await;
    }

    async fn wait_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !done() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        match deadline {
            Some(deadline) => drop(tokio::time::timeout_at(deadline, waiting).await),
            None => waiting.await,
        }
    }

    /// Writes to the command's standard input what it takes within `patience`; how many bytes that were. Errors
    /// when the input was closed.
    pub(crate) async fn write(&self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        use tokio::io::AsyncWriteExt;
        let mut written = 0;
        let write = async {
            let mut stdin = self.stdin.lock().await;
            let Some(stdin) = stdin.as_mut() else {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the command has ended"));
            };
            while written < bytes.len() {
                written += stdin.write(&bytes[written..]).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(patience, write).await {
            Ok(result) => result.map(|()| written),
            Err(_elapsed) => Ok(written),
        }
    }

    /// Lets the command read the end of its input.
    pub(crate) async fn close_input(&self) {
        *self.stdin.lock().await = None;
    }

    /// Sends `signal` to the command's process group. If it ends by that, its status is `killed`.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        {
            let mut state = self.state.lock();
            if state.status != CommandStatus::Running {
                return false;
            }
            state.cause.get_or_insert(CommandStatus::Killed);
        }
        // The number of a group is not given away while the group has members.
        rustix::process::kill_process_group(self.pid, signal).is_ok()
    }

    /// It, and all that it has started.
    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    pub(crate) fn release_output(&self) {
        let mut state = self.state.lock();
        state.stdout.release();
        state.stderr.release();
    }

    fn announce(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

fn reading<T>(state: &State, stdout: Piece<T>, stderr: Piece<T>) -> Reading<T> {
    Reading {
        stdout: stdout.content,
        stderr: stderr.content,
        offset: stdout.next,
        stderr_offset: stderr.next,
        status: state.status,
        exit_code: state.exit_code,
        verdict: state.verdict.clone(),
    }
}

async fn drive(
    command: Arc<BashCommand>,
    surroundings: Arc<Surroundings>,
    started: Started,
    mut stdout: pipe::Receiver,
    mut stderr: pipe::Receiver,
    mut deadline: Option<Instant>,
) {
    let mut exited = started.exited;
    let (mut out, mut err) = (vec![0; READ], vec![0; READ]);
    let (mut out_open, mut err_open) = (true, true);
    let mut asked = false;
    let mut reader = command.backpressure.as_ref().map(Backpressure::subscribe);
    let exit = loop {
        // Before the room is looked at: what is read meanwhile wakes the loop.
        let seen = reader.as_mut().map(|reader| *reader.borrow_and_update());
        let (out_room, err_room) = (command.room(seen, Stream::Out), command.room(seen, Stream::Err));
        tokio::select! {
            read = stdout.read(&mut out[..out_room]), if out_open && out_room > 0 => {
                out_open = take(&command, &read, &out, Stream::Out);
            }
            read = stderr.read(&mut err[..err_room]), if err_open && err_room > 0 => {
                err_open = take(&command, &read, &err, Stream::Err);
            }
            exit = ended(&mut exited) => break exit,
            () = read_on(reader.as_mut()), if out_room == 0 || err_room == 0 => {}
            () = abandoned(&command), if !asked => {
                command.state.lock().cause.get_or_insert(CommandStatus::Killed);
                let _ = rustix::process::kill_process_group(started.pid, Signal::HUP);
                deadline = Some(Instant::now() + KILL_GRACE);
                asked = true;
            }
            () = until(deadline), if deadline.is_some() => {
                command.state.lock().cause.get_or_insert(CommandStatus::TimedOut);
                if asked {
                    end_family(&command, &surroundings).await;
                    deadline = None;
                } else {
                    let _ = rustix::process::kill_process_group(started.pid, Signal::TERM);
                    deadline = Some(Instant::now() + KILL_GRACE);
                }
                asked = true;
            }
        }
    };
    drain(&stdout, &command, &mut out, Stream::Out).await;
    drain(&stderr, &command, &mut err, Stream::Err).await;
    finish(&command, exit, &surroundings).await;
    // A background process may hold the pipes: it goes on writing, and its output goes on being kept.
    drop((out, err));
    let mut buffer = vec![0; 8 * 1024];
    let mut other = vec![0; 8 * 1024];
    while out_open || err_open {
        tokio::select! {
            read = stdout.read(&mut buffer), if out_open => out_open = take(&command, &read, &buffer, Stream::Out),
            read = stderr.read(&mut other), if err_open => err_open = take(&command, &read, &other, Stream::Err),
        }
    }
}

/// Ends the command and all it has started.
async fn end_family(command: &BashCommand, surroundings: &Surroundings) {
    let family = command.family.clone();
    // A pool that is overrun has this left undone; the end of the session comes back to it.
    let _ = surroundings.pool.run(move || family.end()).await;
}

/// Waits until the reader has read on, or come, or gone.
async fn read_on(reader: Option<&mut watch::Receiver<Reader>>) {
    match reader {
        // The sender lives as long as the command.
        Some(reader) => drop(reader.changed().await),
        None => std::future::pending().await,
    }
}

async fn abandoned(command: &BashCommand) {
    match &command.backpressure {
        Some(backpressure) => backpressure.abandoned().await,
        None => std::future::pending().await,
    }
}

async fn finish(command: &Arc<BashCommand>, exit: Option<Exit>, surroundings: &Surroundings) {
    *command.stdin.lock().await = None;
    let cause = command.state.lock().cause;
    if cause.is_some() {
        // A time-out, a kill and the loss of the reader end everything the command started, not only its first process.
        end_family(command, surroundings).await;
    }
    {
        let mut state = command.state.lock();
        // A command that outlived a signal by handling it, and ended by itself, has completed.
        let by_itself = matches!(exit, Some(Exit::Code(_))) && cause == Some(CommandStatus::Killed);
        state.status = match cause {
            Some(cause) if !by_itself => cause,
            _ => CommandStatus::Completed,
        };
        state.exit_code = exit.map(Exit::shell_code);
        state.verdict = state.memory.verdict(state.exit_code);
    }
    command.announce();
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

fn take(command: &BashCommand, read: &io::Result<usize>, buffer: &[u8], stream: Stream) -> bool {
    let Ok(length) = *read else { return false };
    append(command, &buffer[..length], stream);
    length > 0
}

fn append(command: &BashCommand, bytes: &[u8], stream: Stream) {
    {
        let mut state = command.state.lock();
        match stream {
            Stream::Out => state.stdout.append(bytes),
            Stream::Err => state.stderr.append(bytes),
        }
    }
    command.announce();
}

/// Reads what the pipe still holds. What the process wrote is there already; what others write may wait.
async fn drain(pipe: &pipe::Receiver, command: &BashCommand, buffer: &mut [u8], stream: Stream) {
    let mut left = LAST_READ;
    let mut reader = command.backpressure.as_ref().map(Backpressure::subscribe);
    while left > 0 {
        let seen = reader.as_mut().map(|reader| *reader.borrow_and_update());
        let room = command.room(seen, stream);
        if room == 0 {
            tokio::select! {
                () = read_on(reader.as_mut()) => continue,
                () = abandoned(command) => return,
            }
        }
        // tokio's `try_read` asks its own idea of readiness first, which may lag behind the process's end.
        match rustix::io::read(pipe, &mut buffer[..room]) {
            Ok(length) if length > 0 => {
                append(command, &buffer[..length], stream);
                left = left.saturating_sub(length);
            }
            _ => return,
        }
    }
}
