//! The `/v1/shell` routes: they check, convert, and call the session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::registry::{ACTIVE, AUTOMATIC_IDLE, NewSession};
use super::session::Session;
use super::state::{ConsoleRecord, Ending, Execution, Order, Status, transcript};
use crate::app::App;
use crate::clock;
use crate::http::{ApiError, JsonBody, ok, ok_with_hint};
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

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/shell/exec", post(exec))
        .route("/v1/shell/view", post(view))
        .route("/v1/shell/wait", post(wait))
        .route("/v1/shell/write", post(write))
        .route("/v1/shell/kill", post(kill))
        .route("/v1/shell/sessions/create", post(create))
        .route("/v1/shell/sessions/update", post(update))
        .route("/v1/shell/sessions", get(list).delete(remove_all))
        .route("/v1/shell/sessions/stats", get(stats))
        .route("/v1/shell/sessions/{id}", delete(remove))
        .route("/v1/shell/terminal-url", get(terminal_url))
}

#[derive(Deserialize)]
struct ExecRequest {
    command: String,
    id: Option<String>,
    exec_dir: Option<String>,
    async_mode: Option<bool>,
    timeout: Option<Seconds>,
    strict: Option<bool>,
    no_change_timeout: Option<Seconds>,
    hard_timeout: Option<Seconds>,
    preserve_symlinks: Option<bool>,
    truncate: Option<bool>,
}

#[derive(Serialize)]
struct CommandResult {
    session_id: String,
    command: String,
    status: Status,
    output: String,
    console: Vec<ConsoleRecord>,
    exit_code: Option<i32>,
}

async fn exec(State(app): State<App>, JsonBody(request): JsonBody<ExecRequest>) -> Answer {
    check_command(&request.command)?;
    let physical = !request.preserve_symlinks.unwrap_or(false);
    let directory = usable_directory(request.exec_dir.as_deref(), physical);
    if directory.is_none() && request.strict == Some(true) && request.exec_dir.is_some() {
        let asked = request.exec_dir.unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "exec_dir {asked:?} is not an absolute path of a directory"
        )));
    }
    let named = request.id.filter(|id| !id.is_empty());
    let (session, change_to) = match named {
        Some(id) => (app.shells().get(&id)?, directory),
        None => {
            let start = directory.unwrap_or_else(|| app.workspace());
            let new = NewSession { id: None, directory: start, no_change: None };
            (app.shells().create(new).await?, None)
        }
    };
    let no_change = session.no_change(request.no_change_timeout.map(Seconds::duration));
    let timeout = request.timeout.map(Seconds::duration);
    let detached = request.async_mode == Some(true);
    let patience = (!detached).then(|| timeout.unwrap_or(no_change));
    let began = Instant::now();
    let turn = session.take_turn(patience).await?;
    let order = Order {
        command: request.command,
        no_change,
        hard: request.hard_timeout.map(Seconds::duration),
        truncate: request.truncate.unwrap_or(true),
    };
    let (execution, fresh) = session.begin(order, change_to, turn).await?;
    if !detached {
        let deadline = timeout.and_then(|timeout| began.checked_add(timeout));
        session.wait(&execution, deadline, false).await;
    }
    let hint = fresh.then_some("the session's shell had ended; this ran in a fresh one");
    let result = command_result(&session, &execution.lock());
    Ok(ok_with_hint(exec_message(result.status, detached), result, hint))
}

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
fn usable_directory(asked: Option<&str>, physical: bool) -> Option<PathBuf> {
    let path = Path::new(asked?);
    if !path.is_absolute() || !path.is_dir() {
        return None;
    }
    if physical { path.canonicalize().ok() } else { Some(path.to_path_buf()) }
}

#[derive(Deserialize)]
struct IdRequest {
    id: String,
}

#[derive(Serialize)]
struct ViewResult {
    session_id: String,
    status: Status,
    command: Option<String>,
    output: String,
    console: Vec<ConsoleRecord>,
    exit_code: Option<i32>,
}

async fn view(State(app): State<App>, JsonBody(request): JsonBody<IdRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let view = session.view();
    let result = ViewResult {
        session_id: session.id.clone(),
        status: view.status,
        command: view.command,
        output: transcript(&view.console),
        console: view.console,
        exit_code: view.exit_code,
    };
    Ok(ok("Session content", result))
}

#[derive(Serialize)]
struct StatusResult {
    status: Status,
}

#[derive(Deserialize)]
struct WaitRequest {
    id: String,
    seconds: Option<Seconds>,
    max_wait_seconds: Option<Seconds>,
}

async fn wait(State(app): State<App>, JsonBody(request): JsonBody<WaitRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let asked = request.max_wait_seconds.or(request.seconds).map_or(WAIT, Seconds::duration);
    let deadline = Instant::now() + asked.min(LONGEST_WAIT);
    if let Some(execution) = session.last() {
        let already_told = execution.lock().status == Status::NoChangeTimeout;
        session.wait(&execution, Some(deadline), already_told).await;
    }
    Ok(ok("Process status", StatusResult { status: session.status() }))
}

#[derive(Deserialize)]
struct WriteRequest {
    id: String,
    input: String,
    press_enter: Option<bool>,
}

async fn write(State(app): State<App>, JsonBody(request): JsonBody<WriteRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let mut bytes = request.input.into_bytes();
    if request.press_enter.unwrap_or(true) {
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
    match tokio::time::timeout(INPUT_DEADLINE, write_all).await {
        Ok(Ok(())) => Ok(ok("Input written", StatusResult { status: session.status() })),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("input cannot be written: {error}"))),
        Err(_) => Err(ApiError::bad_request("the program does not read its input")),
    }
}

#[derive(Serialize)]
struct KillResult {
    status: Status,
    exit_code: Option<i32>,
    returncode: Option<i32>,
}

async fn kill(State(app): State<App>, JsonBody(request): JsonBody<IdRequest>) -> Answer {
    let session = app.shells().get(&request.id)?;
    let was_running = session.end_current(Ending::Killed);
    if let Some(execution) = session.last().filter(|_| was_running) {
        session.wait(&execution, Some(Instant::now() + KILL_WAIT), true).await;
    }
    let (status, exit_code) = session.last().map_or((Status::Terminated, None), |last| {
        let last = last.lock();
        (last.status, last.exit_code)
    });
    let message = if was_running { "Process terminated" } else { "No process was running" };
    Ok(ok(message, KillResult { status, exit_code, returncode: exit_code }))
}

#[derive(Deserialize)]
struct CreateRequest {
    id: Option<String>,
    exec_dir: Option<String>,
    no_change_timeout: Option<Seconds>,
    preserve_symlinks: Option<bool>,
}

#[derive(Serialize)]
struct CreateResult {
    session_id: String,
    working_dir: String,
}

async fn create(State(app): State<App>, JsonBody(request): JsonBody<CreateRequest>) -> Answer {
    let physical = !request.preserve_symlinks.unwrap_or(false);
    let directory = match request.exec_dir.as_deref() {
        Some(asked) => usable_directory(Some(asked), physical).ok_or_else(|| {
            ApiError::bad_request(format!("exec_dir {asked:?} is not an absolute path of a directory"))
        })?,
        None => app.workspace(),
    };
    let no_change = request.no_change_timeout.map(Seconds::duration);
    let id = request.id.filter(|id| !id.is_empty());
    // A session that somebody asks for is meant to last, even when its id is left to us.
    let id = Some(id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()));
    let session = app.shells().create(NewSession { id, directory, no_change }).await?;
    let working_dir = session.directory().to_string_lossy().into_owned();
    Ok(ok("Session created", CreateResult { session_id: session.id.clone(), working_dir }))
}

#[derive(Deserialize)]
struct UpdateRequest {
    id: String,
    no_change_timeout: Option<Seconds>,
}

async fn update(State(app): State<App>, JsonBody(request): JsonBody<UpdateRequest>) -> Answer {
    app.shells().get(&request.id)?.update(request.no_change_timeout.map(Seconds::duration));
    Ok(ok("Session updated", ()))
}

#[derive(Serialize)]
struct SessionInfo {
    working_dir: String,
    created_at: String,
    last_used_at: String,
    age_seconds: u64,
    status: Status,
    current_command: Option<String>,
}

#[derive(Serialize)]
struct Sessions {
    sessions: BTreeMap<String, SessionInfo>,
}

async fn list(State(app): State<App>) -> Answer {
    let sessions =
        app.shells().all().into_iter().map(|session| (session.id.clone(), info(&session))).collect();
    Ok(ok("Sessions", Sessions { sessions }))
}

fn info(session: &Arc<Session>) -> SessionInfo {
    let running = session.last().and_then(|last| {
        let last = last.lock();
        last.is_live().then(|| last.command.clone())
    });
    SessionInfo {
        working_dir: session.directory().to_string_lossy().into_owned(),
        created_at: clock::iso(session.created),
        last_used_at: clock::iso(session.last_used()),
        age_seconds: session.created.elapsed().unwrap_or_default().as_secs(),
        status: session.status(),
        current_command: running,
    }
}

#[derive(Serialize)]
struct Stats {
    total_sessions: usize,
    active_sessions: usize,
    idle_sessions: usize,
    max_sessions: usize,
    session_timeout: u64,
    usage_ratio: f64,
}

async fn stats(State(app): State<App>) -> Answer {
    let now = SystemTime::now();
    let all = app.shells().all();
    let recently = |session: &&Arc<Session>| {
        session.is_busy() || now.duration_since(session.last_used()).unwrap_or_default() < ACTIVE
    };
    let active = all.iter().filter(recently).count();
    let max = app.shells().max;
    let stats = Stats {
        total_sessions: all.len(),
        active_sessions: active,
        idle_sessions: all.len() - active,
        max_sessions: max,
        session_timeout: AUTOMATIC_IDLE.as_secs(),
        usage_ratio: ratio(all.len(), max),
    };
    Ok(ok("Session statistics", stats))
}

fn ratio(part: usize, whole: usize) -> f64 {
    let (part, whole) = (u32::try_from(part).unwrap_or(u32::MAX), u32::try_from(whole).unwrap_or(u32::MAX));
    f64::from(part) / f64::from(whole.max(1))
}

async fn remove(State(app): State<App>, UrlPath(id): UrlPath<String>) -> Answer {
    app.shells().remove(&id).await?;
    Ok(ok("Session closed", ()))
}

async fn remove_all(State(app): State<App>) -> Answer {
    let count = app.shells().remove_all().await;
    Ok(ok(&format!("{count} sessions closed"), ()))
}

async fn terminal_url(State(app): State<App>, headers: HeaderMap) -> Answer {
    let new = NewSession { id: None, directory: app.workspace(), no_change: None };
    let session = app.shells().create(new).await?;
    let host =
        headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:8080");
    Ok(ok("Terminal URL", format!("http://{host}/terminal?session_id={}", session.id)))
}
