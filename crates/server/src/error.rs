//! From what went wrong to an answer.

use std::error::Error as _;
use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use stockade_api::{ErrorBody, InvalidRequest, MountContractChanged};
use stockade_core::BackendError;

/// What a program reads from an answer; also the outcome in the log line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);

/// What the log says of an error and the caller is not told.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

/// Seconds after which a caller may try again when nobody knows better.
const RETRY_AFTER: u64 = 2;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// What the backend said.
    Backend(BackendError),
    /// A body or a query that does not validate.
    Invalid(InvalidRequest),
    /// The caller requires another mount contract.
    MountContract(MountContractChanged),
    /// What this server says of itself.
    Own { status: StatusCode, code: &'static str, detail: String, retry_after: Option<u64> },
}

impl ApiError {
    pub(crate) fn own(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Own { status, code, detail: detail.into(), retry_after: None }
    }

    /// For an id that cannot be any sandbox's; the text is cut, and escaped by JSON.
    pub(crate) fn no_such_sandbox(asked: &str) -> Self {
        Self::own(StatusCode::NOT_FOUND, "not_found", format!("Sandbox '{asked}' not found"))
    }

    pub(crate) fn overloaded(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::Own {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "overloaded",
            detail: detail.into(),
            retry_after: Some(retry_after),
        }
    }

    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>, retry_after: u64) -> Self {
        Self::Own {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code,
            detail: detail.into(),
            retry_after: Some(retry_after),
        }
    }

    pub(crate) fn not_built(what: &str) -> Self {
        Self::own(
            StatusCode::NOT_IMPLEMENTED,
            "not_implemented",
            format!("{what} is not available in this version of Stockade"),
        )
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(invalid: InvalidRequest) -> Self {
        Self::Invalid(invalid)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Backend(error) => backend_response(&error),
            Self::Invalid(invalid) => json(StatusCode::UNPROCESSABLE_ENTITY, InvalidRequest::CODE, &invalid),
            Self::MountContract(changed) => json(StatusCode::CONFLICT, MountContractChanged::CODE, &changed),
            Self::Own { status, code, detail, retry_after } => {
                let body = ErrorBody { detail, code: code.to_owned() };
                with_retry_after(json(status, code, &body), retry_after)
            }
        }
    }
}

fn backend_response(error: &BackendError) -> Response {
    let (status, retry_after) = status_of(error);
    let body = ErrorBody { detail: error.to_string(), code: error.code().to_owned() };
    let mut response = with_retry_after(json(status, error.code(), &body), retry_after);
    if status.is_server_error() {
        response.extensions_mut().insert(Cause(with_sources(error)));
    }
    response
}

/// The status of what a backend said, and the seconds after which to try again.
fn status_of(error: &BackendError) -> (StatusCode, Option<u64>) {
    match error {
        BackendError::Mount(_) | BackendError::Refused { .. } => (StatusCode::BAD_REQUEST, None),
        BackendError::Conflict { .. } | BackendError::NotReady { .. } => (StatusCode::CONFLICT, None),
        BackendError::NotFound { .. } => (StatusCode::NOT_FOUND, None),
        BackendError::Overloaded { retry_after, .. } => {
            (StatusCode::TOO_MANY_REQUESTS, Some(retry_after.as_secs().max(1)))
        }
        BackendError::Terminating { .. }
        | BackendError::Unreachable { .. }
        | BackendError::QuotaExceeded { .. } => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER)),
        BackendError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, None),
        BackendError::Forbidden { .. }
        | BackendError::Rejected { .. }
        | BackendError::PartialCleanup { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
        BackendError::Unsupported { .. } => (StatusCode::NOT_IMPLEMENTED, None),
    }
}

/// The error and all it came from, for the log.
fn with_sources(error: &BackendError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {below}");
        source = below.source();
    }
    text
}

fn with_retry_after(mut response: Response, seconds: Option<u64>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json(status: StatusCode, code: &'static str, body: &impl Serialize) -> Response {
    let mut response = answer(status, body);
    response.extensions_mut().insert(Code(code));
    response
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    answer_of_size(status, body, 512)
}

/// An answer in JSON that is about as long as said, in bytes.
pub(crate) fn answer_of_size(status: StatusCode, body: &impl Serialize, size: usize) -> Response {
    let mut text = Vec::with_capacity(size);
    match serde_json::to_writer(&mut text, body) {
        Ok(()) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // Our own types have no way to fail.
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
