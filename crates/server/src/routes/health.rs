//! How the server is.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use stockade_api::{Health, Readiness};

use crate::error;
use crate::metrics;
use crate::state::ServerState;

/// The server lives
///
/// Always open; says nothing about the backend.
#[utoipa::path(
    get, path = "/health", tag = "server",
    responses((status = 200, description = "It lives", body = Health))
)]
pub(super) async fn health() -> Response {
    error::answer(StatusCode::OK, &Health::ok())
}

/// The server lives, by the name Kubernetes uses
#[utoipa::path(
    get, path = "/healthz", tag = "server",
    responses((status = 200, description = "It lives", body = Health))
)]
pub(super) async fn live() -> Response {
    error::answer(StatusCode::OK, &Health::ok())
}

/// Whether the backend's answers can be relied on
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "They cannot; the parts say why", body = Readiness),
    )
)]
pub(super) async fn ready(State(state): State<ServerState>) -> Response {
    let backend = state.backend();
    let readiness = Readiness::of(backend.name(), backend.health());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    error::answer(status, &readiness)
}

/// Metrics in the OpenMetrics text format
///
/// Open, unless the server is set to want the key.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "All of them", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(state): State<ServerState>) -> Response {
    match state.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
