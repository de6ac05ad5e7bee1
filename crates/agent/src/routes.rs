//! Every route of the agent.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::app::App;
use crate::http::{ApiError, reading};
use crate::{auth, bash, code, context, extras, file, mcp, preview, shell};

/// Groups of routes that need the full image: a browser, a display, an egress proxy.
const FULL_IMAGE: &[&str] =
    &["/v1/browser", "/v1/display", "/v1/proxy", "/cdp", "/vnc", "/jupyter", "/code-server"];

pub(crate) fn all(app: App) -> Router {
    let only_reads = app.only_reads().cloned();
    let routes = every(app);
    match only_reads {
        None => routes,
        Some(why) => {
            routes.layer(from_fn(move |request, next| reading::check(Arc::clone(&why), request, next)))
        }
    }
}

fn every(app: App) -> Router {
    Router::new()
        .merge(context::router())
        .merge(auth::router())
        .merge(shell::routes::router())
        .merge(shell::sessions::router())
        .merge(bash::routes::router())
        .merge(file::routes::router())
        .merge(file::watch::router())
        .merge(code::router())
        .merge(extras::router())
        .merge(mcp::router())
        .merge(preview::router())
        .merge(shell::websocket::router())
        .merge(shell::page::router())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let in_full_image = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '_']))
    };
    if FULL_IMAGE.iter().any(|prefix| in_full_image(prefix)) {
        return ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{path} is not part of this sandbox"))
            .with_hint("it needs the full image: start the sandbox from ghcr.io/agent-infra/sandbox")
            .into_response();
    }
    ApiError::not_found(format!("there is no route {} {path}", request.method())).into_response()
}

async fn wrong_method(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response()
}
