//! The `/v1/bash` routes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::command::{BashCommand, BashOrder, CommandStatus, Reading};
use super::follow::Following;
use crate::app::App;
use crate::defaults::OffByDefault;
use crate::environment::Requested;
use crate::http::{ApiError, JsonBody, Success, events, ok};
use crate::seconds::Seconds;
use crate::shell::routes::check_command;
use crate::text::cut_middle;

/// Characters of each stream in the answer of a synchronous exec, unless told otherwise.
const OUTPUT_LENGTH: usize = 50_000;
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
const INPUT_BYTES: usize = 1024 * 1024;
const INPUT_DEADLINE: Duration = Duration::from_secs(5);

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/bash/exec", post(exec))
        .route("/v1/bash/output", post(output))
        .route("/v1/bash/write", post(write))
        .route("/v1/bash/kill", post(kill))
        .route("/v1/bash/sessions", get(sessions))
        .route("/v1/bash/sessions/create", post(create))
        .route("/v1/bash/sessions/{id}/close", post(close))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ExecRequest {
    /// What to run, in a process of its own.
    command: String,
    /// The session whose directory is used. None makes a new one, whose id is in the answer.
    session_id: Option<String>,
    /// An absolute path of a directory to run it in, and the session's from then on.
    exec_dir: Option<String>,
    /// Variables for this command alone. Those that bash sets itself, as PPID, have no effect, which the hint says.
    env: Option<BTreeMap<String, String>>,
    /// Answer at once, with the command running.
    async_mode: OffByDefault,
    /// Seconds to wait for the end; then the answer is `running`, and so is the command.
    timeout: Option<Seconds>,
    /// Seconds after which the command is ended.
    hard_timeout: Option<Seconds>,
    /// Characters of each stream in the answer, beginning and end; 0 for all. Not with `async_mode`.
    #[schema(default = json!(OUTPUT_LENGTH))]
    max_output_length: Option<usize>,
    /// The command waits for whoever reads its output by `/v1/bash/output`, and ends when nobody does. Needs
    /// `async_mode`.
    backpressure: OffByDefault,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ExecResult {
    session_id: String,
    command_id: String,
    command: String,
    status: CommandStatus,
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    /// Bytes of standard output so far: where `output` goes on.
    offset: u64,
    stderr_offset: u64,
}

async fn exec(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Answer {
    check_command(&request.command)?;
    let backpressure = request.backpressure.0;
    if backpressure && !request.async_mode.0 {
        let message =
            "needs \"async_mode\": true: the command waits for who reads its output by /v1/bash/output";
        return Err(ApiError::invalid("backpressure", message));
    }
    let requested = Requested::check(request.env.unwrap_or_default())?;
    let directory = request.exec_dir.map(|asked| existing_directory("exec_dir", &asked)).transpose()?;
    let named = request.session_id.filter(|id| !id.trim().is_empty());
    let session = match named {
        Some(id) => {
            let session = app.bashes().get(&id)?;
            if let Some(directory) = directory {
                session.set_directory(directory);
            }
            session
        }
        None => app.bashes().create(None, directory.unwrap_or_else(|| app.workspace()), None)?,
    };
    let order = BashOrder {
        id: Uuid::new_v4().to_string(),
        text: request.command,
        directory: session.directory(),
        environment: requested.variables,
        snapshot: session.snapshot(),
        hard: request.hard_timeout.map(Seconds::duration),
        backpressure,
    };
    let began = Instant::now();
    let command = session.run(order, &app.bashes().surroundings).await?;
    let detached = request.async_mode.0;
    let limit = request.max_output_length.unwrap_or(OUTPUT_LENGTH);
    let session_id = session.id.clone();
    if detached {
        return Ok(exec_result(session_id, &command, command.read(0, 0), 0, requested.hint).into_response());
    }
    let deadline = request.timeout.and_then(|timeout| began.checked_add(timeout.duration()));
    if events::wanted(&headers) {
        let changed = command.changed();
        let result = move |command: &BashCommand| {
            exec_result(session_id.clone(), command, command.whole(), limit, requested.hint.clone()).text()
        };
        return Ok(events::answer(Following::new(command, deadline, result), changed));
    }
    command.ended(deadline).await;
    Ok(exec_result(session_id, &command, command.whole(), limit, requested.hint).into_response())
}

fn exec_result(
    session_id: String,
    command: &BashCommand,
    whole: Reading,
    limit: usize,
    hint: Option<String>,
) -> Success<ExecResult> {
    let data = ExecResult {
        session_id,
        command_id: command.id.clone(),
        command: command.text.clone(),
        status: whole.status,
        stdout: cut_middle(whole.stdout, limit),
        stderr: cut_middle(whole.stderr, limit),
        exit_code: whole.exit_code,
        offset: whole.offset,
        stderr_offset: whole.stderr_offset,
    };
    let message = match whole.status {
        CommandStatus::Running => "Command is running",
        CommandStatus::Completed => "Command executed",
        CommandStatus::TimedOut => "Command was ended at its hard time-out",
        CommandStatus::Killed => "Command was killed",
    };
    Success { message: message.into(), data, hint: hint.map(Cow::from) }.after(whole.verdict)
}

fn existing_directory(field: &str, asked: &str) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(asked);
    if path.is_absolute() && path.is_dir() {
        return Ok(path);
    }
    Err(ApiError::bad_request(format!("{field} {asked:?} is not an absolute path of a directory")))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct OutputRequest {
    /// The session.
    session_id: String,
    /// The command; the newest unless given.
    command_id: Option<String>,
    /// Bytes of standard output to skip.
    #[schema(default = 0)]
    offset: Option<u64>,
    /// Bytes of standard error to skip.
    #[schema(default = 0)]
    stderr_offset: Option<u64>,
    /// Wait for new output or the end.
    wait: OffByDefault,
    /// Seconds to wait at most; 30 unless given, never more than 600.
    wait_timeout: Option<Seconds>,
    /// How output stands in the answer. With `base64`, byte for byte.
    encoding: Option<Encoding>,
    /// Waits for the end of the command and not for output, and reads nothing: a reader that is busy stays one.
    wait_for_end: OffByDefault,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CommandInfo {
    command_id: String,
    command: String,
    status: CommandStatus,
    exit_code: Option<i32>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct OutputResult {
    session_id: String,
    stdout: String,
    stderr: String,
    /// Where the next call goes on.
    offset: u64,
    stderr_offset: u64,
    /// None: no command was run in the session.
    command: Option<CommandInfo>,
    /// Said when it was asked for, so that callers see that it was understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<Encoding>,
}

async fn output(State(app): State<App>, JsonBody(request): JsonBody<OutputRequest>) -> Answer {
    let session = app.bashes().get(&request.session_id)?;
    let (offset, stderr_offset) = (request.offset.unwrap_or(0), request.stderr_offset.unwrap_or(0));
    let command = session.command(request.command_id.as_deref());
    let Some(command) = command else {
        return match request.command_id {
            Some(id) => {
                Err(ApiError::not_found(format!("Command not found: {id} in session {}", session.id)))
            }
            None => Ok(ok(
                "No command was run in this session",
                OutputResult {
                    session_id: session.id.clone(),
                    stdout: String::new(),
                    stderr: String::new(),
                    offset,
                    stderr_offset,
                    command: None,
                    encoding: request.encoding,
                },
            )),
        };
    };
    let attention = command.attention();
    let deadline = || Instant::now() + request.wait_timeout.map_or(WAIT, Seconds::duration).min(LONGEST_WAIT);
    let (offset, stderr_offset) = if request.wait_for_end.0 {
        command.ended(Some(deadline())).await;
        command.totals()
    } else {
        command.read_to(offset, stderr_offset);
        (offset, stderr_offset)
    };
    if request.wait.0 && !request.wait_for_end.0 {
        command.news(offset, stderr_offset, deadline()).await;
    }
    let reading = match request.encoding {
        Some(Encoding::Base64) => encoded(command.read_bytes(offset, stderr_offset)),
        Some(Encoding::Utf8) | None => command.read(offset, stderr_offset),
    };
    let verdict = reading.verdict.clone();
    let result = OutputResult {
        session_id: session.id.clone(),
        stdout: reading.stdout,
        stderr: reading.stderr,
        offset: reading.offset,
        stderr_offset: reading.stderr_offset,
        command: Some(CommandInfo {
            command_id: command.id.clone(),
            command: command.text.clone(),
            status: reading.status,
            exit_code: reading.exit_code,
        }),
        encoding: request.encoding,
    };
    if let Some(attention) = attention {
        attention.answered();
    }
    Ok(Success { message: "Output".into(), data: result, hint: None }.after(verdict).into_response())
}

/// How bytes stand in JSON. Without one, what is not UTF-8 is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

fn encoded(reading: Reading<Vec<u8>>) -> Reading {
    Reading {
        stdout: BASE64.encode(reading.stdout),
        stderr: BASE64.encode(reading.stderr),
        offset: reading.offset,
        stderr_offset: reading.stderr_offset,
        status: reading.status,
        exit_code: reading.exit_code,
        verdict: reading.verdict,
    }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct WriteRequest {
    /// The session.
    session_id: String,
    /// What to write.
    #[schema(max_length = 1048576)]
    input: String,
    /// The command; the newest that runs unless given.
    command_id: Option<String>,
    /// How `input` is written here.
    encoding: Option<Encoding>,
    /// The command reads the end of its input after this.
    close: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct WriteResult {
    /// Bytes the command's input took; the rest was not written.
    written: usize,
    closed: bool,
}

async fn write(State(app): State<App>, JsonBody(request): JsonBody<WriteRequest>) -> Answer {
    let session = app.bashes().get(&request.session_id)?;
    if request.input.len() > INPUT_BYTES {
        let message = format!("input has {} bytes, at most {INPUT_BYTES}", request.input.len());
        return Err(ApiError::invalid("input", message));
    }
    let command = match request.command_id.as_deref() {
        Some(id) => session.command(Some(id)),
        None => session.running_or_last(),
    };
    let Some(command) = command else {
        return Err(ApiError::bad_request(format!("no command in session {} to write to", session.id)));
    };
    let input = match request.encoding {
        Some(Encoding::Base64) => BASE64
            .decode(&request.input)
            .map_err(|error| ApiError::invalid("input", format!("is not base64: {error}")))?,
        Some(Encoding::Utf8) | None => request.input.into_bytes(),
    };
    let failed =
        |error| Err(ApiError::bad_request(format!("cannot write to command {}: {error}", command.id)));
    let written = match command.write(&input, INPUT_DEADLINE).await {
        Ok(written) => written,
        Err(error) => return failed(error),
    };
    let closed = request.close == Some(true) && written == input.len();
    if closed {
        command.close_input().await;
    }
    if request.encoding.is_some() || request.close.is_some() {
        // Whoever asks like this can send the rest again.
        return Ok(ok("Input written", WriteResult { written, closed }));
    }
    if written < input.len() {
        return failed(io::Error::new(io::ErrorKind::TimedOut, "the command does not read its input"));
    }
    Ok(ok("Input written", ()))
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub(crate) enum KillSignal {
    #[serde(rename = "SIGTERM", alias = "TERM", alias = "15")]
    Term,
    #[serde(rename = "SIGKILL", alias = "KILL", alias = "9")]
    Kill,
    #[serde(rename = "SIGINT", alias = "INT", alias = "2")]
    Int,
    #[serde(rename = "SIGHUP", alias = "HUP", alias = "1")]
    Hup,
    #[serde(rename = "SIGQUIT", alias = "QUIT", alias = "3")]
    Quit,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct KillRequest {
    /// The session, whose running commands all get the signal.
    session_id: String,
    #[schema(default = "SIGTERM")]
    signal: Option<KillSignal>,
}

async fn kill(State(app): State<App>, JsonBody(request): JsonBody<KillRequest>) -> Answer {
    let session = app.bashes().get(&request.session_id)?;
    let signal = match request.signal.unwrap_or(KillSignal::Term) {
        KillSignal::Term => Signal::TERM,
        KillSignal::Kill => Signal::KILL,
        KillSignal::Int => Signal::INT,
        KillSignal::Hup => Signal::HUP,
        KillSignal::Quit => Signal::QUIT,
    };
    let reached = session.running().iter().filter(|command| command.signal(signal)).count();
    let message = if reached == 0 { "No command was running" } else { "Signal sent" };
    Ok(ok(message, ()))
}

async fn sessions(State(app): State<App>) -> Answer {
    let all: Vec<_> = app.bashes().all().iter().map(|session| session.info()).collect();
    Ok(ok("Sessions", all))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A name for it, without a slash. A session of that name that is there is returned as it is.
    #[schema(max_length = 128)]
    session_id: Option<String>,
    /// An absolute path of a directory to run in.
    exec_dir: Option<String>,
    /// A script that is sourced before every command.
    snapshot_path: Option<String>,
}

async fn create(State(app): State<App>, JsonBody(request): JsonBody<CreateRequest>) -> Answer {
    let directory = match request.exec_dir {
        Some(asked) => existing_directory("exec_dir", &asked)?,
        None => app.workspace(),
    };
    let snapshot = match request.snapshot_path {
        Some(path) if PathBuf::from(&path).is_file() => Some(PathBuf::from(path)),
        Some(path) => return Err(ApiError::bad_request(format!("snapshot_path {path:?} is not a file"))),
        None => None,
    };
    let id = request.session_id.filter(|id| !id.trim().is_empty());
    let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
    let session = app.bashes().create(Some(id), directory, snapshot)?;
    Ok(ok("Session created", session.info()))
}

async fn close(State(app): State<App>, UrlPath(id): UrlPath<String>) -> Answer {
    app.bashes().remove(&id).await?;
    Ok(ok("Session closed", ()))
}
