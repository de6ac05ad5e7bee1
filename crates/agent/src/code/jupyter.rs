//! `/v1/jupyter`: Python with state, on ipykernel when the image has it, else on our own driver.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::SystemTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::interpreter::{Answerer, Language};
use super::registry::{IDLE, MAX_SESSIONS};
use super::unified::{directory, limit};
use crate::app::App;
use crate::http::{ApiError, JsonBody, ok, ok_with_hint};
use crate::seconds::Seconds;

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/jupyter/execute", post(execute))
        .route("/v1/jupyter/info", get(info))
        .route("/v1/jupyter/sessions", get(list).delete(remove_all))
        .route("/v1/jupyter/sessions/create", post(create))
        .route("/v1/jupyter/sessions/{id}", delete(remove))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ExecuteRequest {
    code: String,
    /// Seconds it may run; 30 unless given. More than 300 are cut to that, and the answer says so.
    timeout: Option<Seconds>,
    /// A name that begins with `python`.
    #[schema(default = "python3")]
    kernel_name: Option<String>,
    /// A session to go on in; a new one unless given.
    session_id: Option<String>,
    /// A directory to run in.
    cwd: Option<String>,
}

/// Any name of a Python kernel means the one Python there is.
fn kernel(asked: Option<&str>) -> Result<&'static str, ApiError> {
    match asked.unwrap_or("python3") {
        "" => Ok("python3"),
        name if name.starts_with("python") => Ok(Language::Python.kernel()),
        name => Err(ApiError::bad_request(format!("kernel {name:?} is not available; there is python3"))),
    }
}

async fn execute(State(app): State<App>, JsonBody(request): JsonBody<ExecuteRequest>) -> Answer {
    let kernel_name = kernel(request.kernel_name.as_deref())?;
    let cwd = directory(request.cwd)?;
    let start = cwd.clone().unwrap_or_else(|| app.workspace());
    let limit = limit(request.timeout);
    let opened = app.codes().open(Language::Python, Answerer::Kernel, request.session_id, start)?;
    let mut outcome = opened.session.run(&app, &request.code, cwd, limit.time).await?;
    outcome.notes.extend(opened.note);
    let hint = outcome.hint(limit.note);
    let result = json!({
        "kernel_name": kernel_name,
        "session_id": opened.session.id,
        "status": outcome.status,
        "execution_count": outcome.execution_count,
        "outputs": outcome.outputs,
        "code": request.code,
        "msg_id": Uuid::new_v4().to_string(),
    });
    Ok(ok_with_hint("Code executed", result, hint.as_deref()))
}

async fn info(State(app): State<App>) -> Response {
    let info = json!({
        "default_kernel": "python3",
        "available_kernels": ["python3"],
        "active_sessions": app.codes().all(Language::Python).len(),
        "session_timeout_seconds": IDLE.as_secs(),
        "max_sessions": MAX_SESSIONS,
        "all_sessions": app.codes().counts(),
        "description": "Python with state kept between calls",
        "kernel_detection": "the python3 found in PATH, with ipykernel when it can be imported",
    });
    ok("Jupyter information", info)
}

async fn list(State(app): State<App>) -> Response {
    let now = SystemTime::now();
    let sessions: Map<String, Value> = app
        .codes()
        .all(Language::Python)
        .iter()
        .map(|session| {
            let last_used = session.facts.lock().last_used;
            let info = json!({
                "kernel_name": "python3",
                "last_used": seconds_since_1970(last_used),
                "age_seconds": now.duration_since(session.created).unwrap_or_default().as_secs(),
            });
            (session.id.clone(), info)
        })
        .collect();
    ok("Sessions", json!({ "sessions": sessions }))
}

fn seconds_since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A name for it.
    session_id: Option<String>,
    /// A name that begins with `python`.
    #[schema(default = "python3")]
    kernel_name: Option<String>,
    /// A directory to start in.
    cwd: Option<String>,
}

async fn create(State(app): State<App>, JsonBody(request): JsonBody<CreateRequest>) -> Answer {
    let kernel_name = kernel(request.kernel_name.as_deref())?;
    super::registry::program(Language::Python)?;
    let start = directory(request.cwd)?.unwrap_or_else(|| app.workspace());
    let opened = app.codes().open(Language::Python, Answerer::Kernel, request.session_id, start)?;
    let message = if opened.new { "Session created" } else { "Session exists already" };
    let result = json!({ "session_id": opened.session.id, "kernel_name": kernel_name, "message": message });
    Ok(ok_with_hint(message, result, opened.note.as_deref()))
}

async fn remove(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.codes().remove(Language::Python, &id)?;
    Ok(ok("Session closed", ()))
}

async fn remove_all(State(app): State<App>) -> Response {
    let count = app.codes().remove_all(Language::Python);
    ok(&format!("{count} sessions closed"), ())
}
