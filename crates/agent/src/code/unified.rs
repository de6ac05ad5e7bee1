//! `/v1/code`: one call for both languages.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use utoipa::ToSchema;

use super::interpreter::{Answerer, Language, Outcome};
use crate::app::App;
use crate::context;
use crate::defaults::OffByDefault;
use crate::http::{ApiError, JsonBody, ok, ok_with_hint};
use crate::seconds::Seconds;

pub(crate) const DEFAULT_LIMIT: Duration = Duration::from_secs(30);
pub(crate) const LONGEST_LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn router() -> Router<App> {
    Router::new().route("/v1/code/execute", post(execute)).route("/v1/code/info", get(info))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ExecuteRequest {
    language: Language,
    code: String,
    /// Seconds it may run; 30 unless given. More than 300 are cut to that, and the answer says so.
    timeout: Option<Seconds>,
    /// A directory to run in.
    cwd: Option<String>,
    /// Keep the state for a later call, which names the `session_id` of the answer.
    stateful: OffByDefault,
    /// A session to go on in.
    session_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ExecuteResult {
    language: Language,
    /// `ok`, `error` or `timeout`.
    status: String,
    /// As Jupyter has them: streams, results, displays, errors.
    outputs: Vec<Value>,
    code: String,
    stdout: String,
    stderr: String,
    exit_code: i32,
    traceback: Vec<String>,
    /// Only when its state is kept.
    session_id: Option<String>,
}

/// How long code may run.
pub(crate) struct Limit {
    pub(crate) time: Duration,
    /// What the caller should know about it.
    pub(crate) note: Option<String>,
}

/// What was asked for, within the bounds.
pub(crate) fn limit(asked: Option<Seconds>) -> Limit {
    let asked = asked.map_or(DEFAULT_LIMIT, Seconds::duration);
    let note = (asked > LONGEST_LIMIT).then(|| {
        format!(
            "the time-out of {} s was cut to {} s, the longest for code; run what takes longer as a command \
             (/v1/bash/exec with async_mode)",
            asked.as_secs_f64(),
            LONGEST_LIMIT.as_secs()
        )
    });
    Limit { time: asked.clamp(Duration::from_millis(1), LONGEST_LIMIT), note }
}

/// A directory to run in, which has to exist.
pub(crate) fn directory(asked: Option<String>) -> Result<Option<PathBuf>, ApiError> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(&asked);
    if path.is_dir() {
        Ok(Some(path))
    } else {
        Err(ApiError::bad_request(format!("cwd {asked:?} is not a directory")))
    }
}

/// What was printed as errors, with the traceback, which is one.
pub(crate) fn errors(outcome: &Outcome) -> String {
    let mut text = outcome.stream("stderr");
    for line in outcome.traceback() {
        text.push_str(&line);
        if !line.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

async fn execute(
    State(app): State<App>,
    JsonBody(request): JsonBody<ExecuteRequest>,
) -> Result<Response, ApiError> {
    let cwd = directory(request.cwd)?;
    let limit = limit(request.timeout);
    let start = cwd.clone().unwrap_or_else(|| app.workspace());
    let (outcome, session_id) = if request.stateful.0 || request.session_id.is_some() {
        let opened = app.codes().open(request.language, Answerer::Driver, request.session_id, start)?;
        let mut outcome = opened.session.run(&app, &request.code, cwd, limit.time).await?;
        outcome.notes.extend(opened.note);
        (outcome, Some(opened.session.id.clone()))
    } else {
        let once = app.codes().run_once(&app, request.language, &request.code, start, limit.time).await?;
        (once, None)
    };
    let hint = outcome.hint(limit.note);
    let result = ExecuteResult {
        language: request.language,
        stdout: outcome.stream("stdout"),
        stderr: errors(&outcome),
        traceback: outcome.traceback(),
        exit_code: outcome.exit_code,
        status: outcome.status,
        outputs: outcome.outputs,
        code: request.code,
        session_id,
    };
    Ok(ok_with_hint("Code executed", result, hint.as_deref()))
}

async fn info(State(app): State<App>) -> Response {
    let languages: Vec<_> = [(Language::Python, "Python"), (Language::Javascript, "JavaScript (Node.js)")]
        .into_iter()
        .map(|(language, description)| {
            let program = context::find_program(language.program());
            json!({
                "language": language,
                "description": description,
                "runtime_version": program.as_deref().and_then(context::version_by_name),
                "default_timeout": DEFAULT_LIMIT.as_secs(),
                "max_timeout": LONGEST_LIMIT.as_secs(),
                "details": {
                    "installed": program.is_some(), "program": program, "sessions": app.codes().counts(),
                },
            })
        })
        .collect();
    ok("Languages", json!({ "languages": languages }))
}
