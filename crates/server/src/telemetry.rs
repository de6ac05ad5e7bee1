//! One request: its id, its line in the log, its count in the metrics.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use stockade_core::{BackendError, SandboxId};
use tracing::Instrument;
use uuid::Uuid;

use crate::error::{Cause, Code};
use crate::path::PathId;
use crate::state::ServerState;

const REQUEST_ID: &str = "x-request-id";
/// The longest request id of a caller that is taken over.
const MAX_REQUEST_ID: usize = 64;
/// The route of paths that have none: one label in the metrics, however many paths there are.
const NO_ROUTE: &str = "unmatched";

/// The sandbox an answer is about, when the path does not name it.
#[derive(Clone)]
pub(crate) struct About(pub(crate) SandboxId);

/// Gives every request its id, its log line and its place in the metrics.
pub(crate) async fn observe(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut line = Line {
        id: id.clone(),
        method: known_method(request.method()),
        route: request.extensions().get::<MatchedPath>().map(|path| path.as_str().into()),
        sandbox: PathId::of(request.uri().path()).and_then(|path| path.id),
        started: Instant::now(),
        state: state.clone(),
        answer: None,
    };
    let _in_flight = state.metrics().in_flight();
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    line.answered(&response);
    drop(line);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The caller's own id when it is a good one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_good = |text: &&str| {
        (1..=MAX_REQUEST_ID).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
    };
    given.filter(is_good).map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned)
}

/// Callers may invent methods; the log and the metrics do not repeat them.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// The log line of one request. It is written when this is dropped: by the answer, or because the
/// caller hung up before there was one.
struct Line {
    id: String,
    method: &'static str,
    route: Option<Box<str>>,
    sandbox: Option<SandboxId>,
    started: Instant,
    state: ServerState,
    answer: Option<Answer>,
}

struct Answer {
    status: StatusCode,
    code: &'static str,
    cause: Option<Cause>,
}

impl Line {
    fn answered(&mut self, response: &Response) {
        let extensions = response.extensions();
        let status = response.status();
        let plain = if status.is_client_error() || status.is_server_error() { "error" } else { "ok" };
        if let Some(About(id)) = extensions.get() {
            self.sandbox = Some(id.clone());
        }
        self.answer = Some(Answer {
            status,
            code: extensions.get::<Code>().map_or(plain, |code| code.0),
            cause: extensions.get::<Cause>().cloned(),
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let route = self.route.as_deref().unwrap_or(NO_ROUTE);
        let status = self.answer.as_ref().map(|answer| answer.status);
        self.state.metrics().request(self.method, route, status, elapsed);
        let outcome = self.answer.as_ref().map_or("caller_hung_up", |answer| answer.code);
        // Debug form: what a backend says may hold anything.
        let cause = self.answer.as_ref().and_then(|answer| answer.cause.as_ref()).map(|cause| &cause.0);
        let milliseconds = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        macro_rules! write_line {
            ($level:ident) => {
                tracing::$level!(
                    request_id = %self.id,
                    method = self.method,
                    route,
                    sandbox_id = self.sandbox.as_ref().map(SandboxId::as_str),
                    status = status.map(|status| status.as_u16()),
                    outcome,
                    milliseconds,
                    cause = cause.map(tracing::field::debug),
                    "request"
                )
            };
        }
        match status {
            Some(StatusCode::NOT_IMPLEMENTED) => write_line!(info), // the caller's doing, not ours
            // A limit that was set, and that holds: nothing went wrong.
            _ if outcome == BackendError::QUOTA_EXCEEDED => write_line!(warn),
            Some(status) if status.is_server_error() && cause.is_some() => write_line!(error),
            Some(status) if status.is_server_error() => write_line!(warn),
            _ if is_probe(route) => write_line!(debug),
            _ => write_line!(info),
        }
    }
}

/// Routes that are asked every few seconds by machines.
fn is_probe(route: &str) -> bool {
    matches!(route, "/health" | "/healthz" | "/readyz" | "/metrics")
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
