//! Commands in sessions: `exec`, `view`, `wait`, `write`, `kill`. They check, convert, and call the session.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::follow::Following;
use super::session::{Session, Through};
use super::state::{ConsoleRecord, Ending, Execution, Order, SharedExecution, Status, transcript};
use crate::app::App;
use crate::defaults::{OffByDefault, OnByDefault};
use crate::http::{ApiError, JsonBody, Success, events, ok};
use crate::kills::Verdict;
use crate::seconds::Seconds;

/// Longest command text.
pub(crate) const COMMAND_BYTES: usize = 4 * 1024 * 1024;
/// Longest single input: the terminal holds 4 KiB of it until the program reads.
const INPUT_BYTES: usize = 64 * 1024;
/// How long a program may take to read input that does not fit.
const INPUT_DEADLINE: Duration = Duration::from_secs(5);
/// How long `wait` waits unless told, and at most.
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How long `kill` waits for the command to be gone.
const KILL_WAIT: Duration = Duration::from_secs(4);

pub(super) type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/shell/exec", post(exec))
        .route("/v1/shell/view", post(view))
        .route("/v1/shell/wait", post(wait))
        .route("/v1/shell/write", post(write))
        .route("/v1/shell/kill", post(kill))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ExecRequest {
    /// What to run; bash reads it.
    command: String,
    /// The session to run it in. None makes a new one, whose id is in the answer.
    id: Option<String>,
    /// An absolute path of a directory to run it in.
    exec_dir: Option<String>,
    /// Answer at once, with the command running.
    async_mode: OffByDefault,
    /// Seconds to wait for the end; then the answer is `running`, and so is the command.
    timeout: Option<Seconds>,
    /// An `exec_dir` that is no directory is an error, instead of the session's own being used.
    strict: OffByDefault,
    /// Seconds without new output after which the answer is `no_change_timeout`; the session's, or 120, unless given.
    no_change_timeout: Option<Seconds>,
    /// Seconds after which the command is ended.
    hard_timeout: Option<Seconds>,
    /// Keep symbolic links in `exec_dir`, instead of resolving them.
    preserve_symlinks: OffByDefault,
    /// Keep the output to 30,000 characters: its beginning and its end.
    truncate: OnByDefault,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CommandResult {
    session_id: String,
    command: String,
    status: Status,
    /// What the command printed on its terminal.
    output: String,
    console: Vec<ConsoleRecord>,
    /// Only when it has completed.
    exit_code: Option<i32>,
}

async fn exec(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Answer {
    check_command(&request.command)?;
    let physical = !request.preserve_symlinks.0;
    let directory = usable_directory(request.exec_dir.as_deref(), physical);
    if directory.is_none() && request.strict.0 && request.exec_dir.is_some() {
        let asked = request.exec_dir.unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "exec_dir {asked:?} is not an absolute path of a directory"
        )));
    }
    let named = request.id.filter(|id| !id.is_empty());
    let began = Instant::now();
    let (session, change_to, turn) = match named {
        Some(id) => (app.shells().get(&id)?, directory, None),
        None => {
            let start = directory.unwrap_or_else(|| app.workspace());
            let (session, turn) = app.shells().create_for_command(start).await?;
            (session, None, Some(turn))
        }
    };
    let no_change = session.no_change(request.no_change_timeout.map(Seconds::duration));
    let timeout = request.timeout.map(Seconds::duration);
    let detached = request.async_mode.0;
    let patience = (!detached).then(|| timeout.unwrap_or(no_change));
    let turn = match turn {
        Some(turn) => turn,
        None => session.take_turn(patience).await?,
    };
    let order = Order {
        command: request.command,
        no_change,
        hard: request.hard_timeout.map(Seconds::duration),
        truncate: request.truncate.0,
    };
    let (execution, fresh) = session.begin(order, change_to, turn).await?;
    let deadline =
        if detached { Some(began) } else { timeout.and_then(|timeout| began.checked_add(timeout)) };
    let result = move |session: &Session, execution: &SharedExecution| {
        let (data, asking, verdict) = {
            let execution = execution.lock();
            let asking = execution.question.is_asked();
            (command_result(session, &execution), asking, execution.verdict.clone())
        };
        let hint = fresh.then_some("the session's shell had ended; this ran in a fresh one");
        let (message, hint) = match asking {
            true => (ASKING, Some(HOW_TO_ANSWER)),
            false => (exec_message(data.status, detached), hint),
        };
        Success { message: message.into(), data, hint: hint.map(Cow::from) }.after(verdict)
    };
    if events::wanted(&headers) {
        let printed = session.printed();
        let mut following = Following::new(session, execution, move |s, e| result(s, e).text());
        following.deadline = deadline;
        return Ok(events::answer(following, printed));
    }
    if !detached {
        session.wait(&execution, deadline, Through { silence: false, questions: false }).await;
    }
    Ok(result(&session, &execution).into_response())
}

/// What is said of a command that waits for input.
const ASKING: &str = "Command is still running: it waits for input";
const HOW_TO_ANSWER: &str =
    "it waits for input on its terminal: give it some with /v1/shell/write, or end it with /v1/shell/kill";

fn exec_message(status: Status, detached: bool) -> &'static str {
    match status {
        Status::Completed => "Command executed",
        Status::Running if detached => "Command started",
        Status::Running => "Command is still running",
        Status::NoChangeTimeout => "Command is still running and has printed nothing for a while",
        Status::HardTimeout => "Command was ended at its hard time-out",
        Status::Terminated => "Command was terminated",
    }
}

fn command_result(session: &Session, execution: &Execution) -> CommandResult {
    let record = execution.record();
    CommandResult {
        session_id: session.id.clone(),
        command: execution.command.clone(),
        status: execution.status,
        output: record.output.clone(),
        console: vec![record],
        exit_code: execution.exit_code,
    }
}

/// bash cannot hold a NUL, and what does not fit is refused before anything runs.
pub(crate) fn check_command(command: &str) -> Result<(), ApiError> {
    if command.contains('\0') {
        return Err(ApiError::invalid("command", "command contains a NUL character"));
    }
    if command.len() > COMMAND_BYTES {
        let message = format!("command has {} bytes, at most {COMMAND_BYTES} are taken", command.len());
        return Err(
            ApiError::invalid("command", message).with_hint("write a script with /v1/file/write and run it")
        );
    }
    Ok(())
}

/// The directory asked for, if it is one, with symbolic links resolved unless they are to be kept.
pub(super) fn usable_directory(asked: Option<&str>, physical: bool) -> Option<PathBuf> {
    let path = Path::new(asked?);
    if !path.is_absolute() || !path.is_dir() {
        return None;
    }
    if physical { path.canonicalize().ok() } else { Some(path.to_path_buf()) }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct IdRequest {
    /// The session.
    id: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ViewResult {
    session_id: String,
    status: Status,
    /// The newest command.
    command: Option<String>,
    /// The whole session as a person would have seen it.
    output: String,
    /// One entry a command, the newest last.
    console: Vec<ConsoleRecord>,
    /// Only when the newest command has completed.
    exit_code: Option<i32>,
}

async fn view(State(app): State<App>, headers: HeaderMap, JsonBody(request): JsonBody<IdRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    if !events::wanted(&headers) {
        return Ok(view_result(&session).into_response());
    }
    let printed = session.printed();
    let Some(execution) = session.last() else {
        return Ok(events::answer(events::Told(view_result(&session).text()), printed));
    };
    let mut following = Following::new(session, execution, |session, _| view_result(session).text());
    following.through_silence = true;
    Ok(events::answer(following, printed))
}

fn view_result(session: &Session) -> Success<ViewResult> {
    let view = session.view();
    let data = ViewResult {
        session_id: session.id.clone(),
        status: view.status,
        command: view.command,
        output: transcript(&view.console),
        console: view.console,
        exit_code: view.exit_code,
    };
    // What it shows is the session's content, whatever became of the newest command.
    let verdict = view.verdict.map(|verdict| Verdict { it: false, ..verdict });
    let (message, hint) =
        if view.is_asking { (ASKING, Some(HOW_TO_ANSWER)) } else { ("Session content", None) };
    Success { message: message.into(), data, hint: hint.map(Cow::from) }.after(verdict)
}

#[derive(Serialize, ToSchema)]
pub(crate) struct StatusResult {
    status: Status,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct WaitRequest {
    /// The session.
    id: String,
    /// As `max_wait_seconds`, which goes before.
    seconds: Option<Seconds>,
    /// Seconds to wait at most; 30 unless given, never more than 600.
    max_wait_seconds: Option<Seconds>,
}

async fn wait(State(app): State<App>, JsonBody(request): JsonBody<WaitRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let asked = request.max_wait_seconds.or(request.seconds).map_or(WAIT, Seconds::duration);
    let deadline = Instant::now() + asked.min(LONGEST_WAIT);
    if let Some(execution) = session.last() {
        let already_told = execution.lock().status == Status::NoChangeTimeout;
        // Who asks again and again would be answered at once, as long as the command waits.
        let through = Through { silence: already_told, questions: true };
        session.wait(&execution, Some(deadline), through).await;
    }
    let verdict = session.last().and_then(|last| last.lock().verdict.clone());
    let data = StatusResult { status: session.status() };
    let asking = session.last().is_some_and(|last| last.lock().question.is_asked());
    let (message, hint) = if asking { (ASKING, Some(HOW_TO_ANSWER)) } else { ("Process status", None) };
    let answer = Success { message: message.into(), data, hint: hint.map(Cow::from) };
    Ok(answer.after(verdict).into_response())
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct WriteRequest {
    /// The session.
    id: String,
    /// What to type.
    #[schema(max_length = 65536)]
    input: String,
    /// End with a line feed.
    press_enter: OnByDefault,
}

async fn write(State(app): State<App>, JsonBody(request): JsonBody<WriteRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let mut bytes = request.input.into_bytes();
    if request.press_enter.0 {
        bytes.push(b'\n');
    }
    if bytes.len() > INPUT_BYTES {
        return Err(ApiError::invalid(
            "input",
            format!("input has {} bytes, at most {INPUT_BYTES}", bytes.len()),
        ));
    }
    let running = session.last().is_some_and(|last| last.lock().is_live());
    let terminal = session.terminal().filter(|_| running);
    let Some(terminal) = terminal else {
        return Err(ApiError::bad_request(format!(
            "no command is running in session {} to write to",
            session.id
        ))
        .with_hint("run commands with /v1/shell/exec"));
    };
    let write_all = async {
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let mut guard = terminal.master.writable().await?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), left)?)) {
                left = &left[written?..];
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let written = tokio::time::timeout(INPUT_DEADLINE, write_all).await;
    session.watch_closely();
    match written {
        Ok(Ok(())) => Ok(ok("Input written", StatusResult { status: session.status() })),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("input cannot be written: {error}"))),
        Err(_) => Err(ApiError::bad_request("the program does not read its input")),
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct KillResult {
    status: Status,
    exit_code: Option<i32>,
    /// The same as `exit_code`.
    returncode: Option<i32>,
}

async fn kill(State(app): State<App>, JsonBody(request): JsonBody<IdRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let was_running = session.end_current(Ending::Killed);
    if let Some(execution) = session.last().filter(|_| was_running) {
        let through = Through { silence: true, questions: true };
        session.wait(&execution, Some(Instant::now() + KILL_WAIT), through).await;
    }
    let (status, exit_code) = session.last().map_or((Status::Terminated, None), |last| {
        let last = last.lock();
        (last.status, last.exit_code)
    });
    let message = if was_running { "Process terminated" } else { "No process was running" };
    Ok(ok(message, KillResult { status, exit_code, returncode: exit_code }))
}
