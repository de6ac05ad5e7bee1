//! An agent that only shows files: what is called to change something or to run something is refused, and told why.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};

use super::ApiError;

/// What only reads, and starts nothing.
const READS: [(Method, &str); 11] = [
    (Method::GET, "/v1/sandbox"),
    (Method::GET, "/v1/openapi.json"),
    (Method::GET, "/openapi.json"),
    (Method::GET, "/v1/file/download"),
    (Method::HEAD, "/v1/file/download"),
    (Method::POST, "/v1/file/read"),
    (Method::POST, "/v1/file/list"),
    (Method::POST, "/v1/file/find"),
    (Method::POST, "/v1/file/glob"),
    (Method::POST, "/v1/file/grep"),
    (Method::POST, "/v1/file/search"),
];

/// Whether a call only reads.
fn only_reads(method: &Method, path: &str) -> bool {
    READS.iter().any(|(known, at)| known == method && *at == path)
}

/// Passes on what only reads. Whatever is not known is refused: a route that is added later too.
pub(crate) async fn check(why: Arc<str>, request: Request, next: Next) -> Response {
    if only_reads(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    refusal(&why).into_response()
}

/// What a call hears that does more than read.
pub(crate) fn refusal(why: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("this sandbox only shows its files: {why}"))
        .with_hint(
            "What works: POST /v1/file/read, list, find, glob, grep, search, and GET /v1/file/download.",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_or_runs_something_is_none_of_it() {
        for path in ["/v1/file/read", "/v1/file/list", "/v1/file/grep"] {
            assert!(only_reads(&Method::POST, path), "{path}");
        }
        assert!(only_reads(&Method::GET, "/v1/file/download"));
        for path in [
            "/v1/file/write",
            "/v1/file/replace",
            "/v1/file/upload",
            "/v1/file/str_replace_editor",
            "/v1/shell/exec",
            "/v1/bash/exec",
            "/v1/code/execute",
            "/v1/jupyter/execute",
            "/mcp",
            "/v1/file/read/",
            "/v1/file/../shell/exec",
        ] {
            assert!(!only_reads(&Method::POST, path), "{path}");
        }
        assert!(!only_reads(&Method::GET, "/v1/shell/ws"));
    }
}
