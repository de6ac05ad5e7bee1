//! `/v1/nodejs`: JavaScript, with and without state.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use utoipa::ToSchema;

use super::interpreter::{Answerer, Language};
use super::registry::{CodeSession, Opened, program};
use super::unified::{Limit, directory, errors, limit};
use crate::app::App;
use crate::bash::run_once;
use crate::clock;
use crate::defaults::OffByDefault;
use crate::http::{ApiError, JsonBody, ok, ok_with_hint};
use crate::seconds::Seconds;

type Answer = Result<Response, ApiError>;

/// Milliseconds a session may be idle unless told otherwise, as upstream.
const MAX_IDLE: u64 = 86_400_000;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/nodejs/execute", post(execute))
        .route("/v1/nodejs/info", get(info))
        .route("/v1/nodejs/sessions", get(list).post(create))
        .route("/v1/nodejs/sessions/{id}", get(read).patch(update).delete(remove))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ExecuteRequest {
    code: String,
    /// Seconds it may run; 30 unless given. More than 300 are cut to that, and the answer says so.
    timeout: Option<Seconds>,
    /// Its standard input, when no state is kept.
    stdin: Option<String>,
    /// Files to write before, by name: their text.
    files: Option<BTreeMap<String, Option<String>>>,
    /// Keep the state for a later call, which names the `session_id` of the answer.
    stateful: OffByDefault,
    /// A session to go on in.
    session_id: Option<String>,
    /// A directory to run in.
    cwd: Option<String>,
}

async fn execute(State(app): State<App>, JsonBody(request): JsonBody<ExecuteRequest>) -> Answer {
    let cwd = directory(request.cwd)?;
    program(Language::Javascript)?;
    let place = cwd.clone().unwrap_or_else(|| app.workspace());
    write_files(&app, &place, request.files.unwrap_or_default()).await?;
    let limit = limit(request.timeout);
    let kept = request.stateful.0 || request.session_id.is_some();
    if !kept {
        return once(&app, request.code, request.stdin, place, limit).await;
    }
    let Opened { session, note, .. } =
        app.codes().open(Language::Javascript, Answerer::Driver, request.session_id, place)?;
    let mut outcome = session.run(&app, &request.code, cwd, limit.time).await?;
    outcome.notes.extend(note);
    let hint = outcome.hint(limit.note);
    let result = json!({
        "language": "javascript", "status": outcome.status, "execution_count": outcome.execution_count,
        "stdout": outcome.stream("stdout"), "stderr": errors(&outcome), "exit_code": outcome.exit_code,
        "outputs": outcome.outputs, "code": request.code, "session_id": session.id,
    });
    Ok(ok_with_hint("Code executed", result, hint.as_deref()))
}

/// Runs the code as a program of its own, with its standard input.
async fn once(app: &App, code: String, stdin: Option<String>, place: PathBuf, limit: Limit) -> Answer {
    let command = "node --input-type=commonjs -e \"$STOCKADE_CODE\"";
    let environment = vec![("STOCKADE_CODE".to_owned(), code.clone())];
    let reading = run_once(app, command, environment, place, stdin, limit.time).await?;
    let (status, exit_code) = match reading.status.as_str() {
        "timed_out" => ("timeout", 124),
        _ if reading.exit_code == Some(0) => ("ok", 0),
        _ => ("error", reading.exit_code.unwrap_or(1)),
    };
    let stream = |name: &str, text: &str| json!({ "output_type": "stream", "name": name, "text": text });
    let mut outputs = Vec::new();
    if !reading.stdout.is_empty() {
        outputs.push(stream("stdout", &reading.stdout));
    }
    if !reading.stderr.is_empty() {
        outputs.push(stream("stderr", &reading.stderr));
    }
    let result = json!({
        "language": "javascript", "status": status, "execution_count": 1, "outputs": outputs, "code": code,
        "stdout": reading.stdout, "stderr": reading.stderr, "exit_code": exit_code, "session_id": null,
    });
    let notes: Vec<String> =
        reading.verdict.map(|verdict| verdict.text).into_iter().chain(limit.note).collect();
    let hint = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(ok_with_hint("Code executed", result, hint.as_deref()))
}

async fn write_files(
    app: &App,
    place: &std::path::Path,
    files: BTreeMap<String, Option<String>>,
) -> Result<(), ApiError> {
    let place = place.to_path_buf();
    let written = app.pool().run(move || {
        for (name, text) in files {
            let path = place.join(&name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| (name.clone(), error))?;
            }
            std::fs::write(&path, text.unwrap_or_default()).map_err(|error| (name, error))?;
        }
        Ok::<(), (String, std::io::Error)>(())
    });
    let failed = |(name, error): (String, std::io::Error)| {
        ApiError::bad_request(format!("cannot write file {name:?}: {error}"))
    };
    written.await?.map_err(failed)
}

async fn info(State(app): State<App>) -> Answer {
    program(Language::Javascript)?;
    let command = "node --version; npm --version 2>/dev/null; npm root -g 2>/dev/null";
    let reading = run_once(&app, command, Vec::new(), app.workspace(), None, Duration::from_secs(20)).await?;
    let mut lines = reading.stdout.lines();
    let node = lines.next().unwrap_or("unknown").to_owned();
    let npm = lines.next().unwrap_or("").to_owned();
    let info = json!({
        "node_version": node, "npm_version": npm, "supported_languages": ["javascript"],
        "description": "Node.js with and without state", "runtime_directory": app.workspace(),
        "global_npm_directory": lines.next(), "runtime_packages": [], "global_packages": [],
        "error": null, "available_versions": [node], "current_version": node,
    });
    Ok(ok("Node.js information", info))
}

fn describe(session: &CodeSession) -> Value {
    let facts = session.facts.lock();
    json!({
        "session_id": session.id,
        "cwd": facts.directory,
        "created_at": clock::millis(session.created),
        "last_used": clock::millis(facts.last_used),
        "max_idle_time": u64::try_from(facts.max_idle.as_millis()).unwrap_or(MAX_IDLE),
        "age_seconds": SystemTime::now().duration_since(facts.last_used).unwrap_or_default().as_secs(),
        "state": if session.is_busy() { "EXECUTING" } else { "IDLE" },
    })
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A name for it.
    session_id: Option<String>,
    /// A directory to start in.
    cwd: Option<String>,
    /// Milliseconds it may be idle before it is ended.
    #[schema(default = json!(MAX_IDLE))]
    max_idle_time: Option<u64>,
}

async fn create(State(app): State<App>, JsonBody(request): JsonBody<CreateRequest>) -> Answer {
    program(Language::Javascript)?;
    let start = directory(request.cwd)?.unwrap_or_else(|| app.workspace());
    let Opened { session, new: created, note } =
        app.codes().open(Language::Javascript, Answerer::Driver, request.session_id, start)?;
    if created {
        session.facts.lock().max_idle = Duration::from_millis(request.max_idle_time.unwrap_or(MAX_IDLE));
    }
    let message = if created { "Session created" } else { "Session exists already" };
    let result = json!({
        "session_id": session.id, "created": created, "message": message, "session": describe(&session),
    });
    Ok(ok_with_hint(message, result, note.as_deref()))
}

async fn list(State(app): State<App>) -> Response {
    let sessions = app.codes().all(Language::Javascript);
    let sessions: Map<String, Value> =
        sessions.iter().map(|session| (session.id.clone(), describe(session))).collect();
    ok("Sessions", json!({ "sessions": sessions }))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let session = app.codes().get(Language::Javascript, &id)?;
    Ok(ok("Session", json!({ "session": describe(&session) })))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct UpdateRequest {
    /// Milliseconds it may be idle before it is ended.
    max_idle_time: Option<u64>,
    /// A directory to go to.
    cwd: Option<String>,
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<UpdateRequest>,
) -> Answer {
    let session = app.codes().get(Language::Javascript, &id)?;
    if let Some(cwd) = directory(request.cwd)? {
        session.facts.lock().directory.clone_from(&cwd);
        let change = format!("process.chdir({})", serde_json::to_string(&cwd).unwrap_or_default());
        session.run(&app, &change, None, Duration::from_secs(10)).await?;
    }
    if let Some(idle) = request.max_idle_time {
        session.facts.lock().max_idle = Duration::from_millis(idle);
    }
    Ok(ok("Session updated", json!({ "updated": true, "session": describe(&session) })))
}

async fn remove(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.codes().remove(Language::Javascript, &id)?;
    Ok(ok("Session closed", json!({ "deleted": true })))
}
