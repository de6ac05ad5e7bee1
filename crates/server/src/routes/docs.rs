//! The API's description, for programs and for people. Nothing is loaded from elsewhere.

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;

use crate::openapi;
use crate::state::ServerState;

/// The page runs its own script and asks its own server, and can do nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Written once: the description does not depend on settings.
static OPENAPI: LazyLock<String> = LazyLock::new(|| openapi::openapi().to_json().unwrap_or_default());

pub(super) fn routes() -> Router<ServerState> {
    Router::new()
        .route("/openapi.json", get(async || file("application/json", OPENAPI.as_str())))
        .route("/docs", get(async || file("text/html; charset=utf-8", include_str!("docs/index.html"))))
        .route("/docs/page.js", get(async || file("text/javascript", include_str!("docs/page.js"))))
        .route("/docs/page.css", get(async || file("text/css", include_str!("docs/page.css"))))
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
