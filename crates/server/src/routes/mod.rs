//! Which path leads where.

mod docs;
mod health;
mod not_built;
mod observe;
mod pausing;
mod reconciliation;
mod sandboxes;
mod starting;

use axum::response::IntoResponse;
use axum::routing::{get, patch, post};
use axum::{Router, middleware};
use http::StatusCode;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::openapi::Description;
use crate::state::ServerState;
use crate::{auth, limits, origin, panics, telemetry};

pub use starting::Starting;

/// The whole server but for its connections.
pub fn router(state: ServerState) -> Router {
    let (documented, _) = documented().split_for_parts();
    documented
        .merge(not_built())
        .merge(docs::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        // The last layer is the outermost.
        .layer(middleware::from_fn_with_state(state.clone(), limits::check))
        .layer(middleware::from_fn_with_state(state.clone(), origin::check))
        .layer(middleware::from_fn_with_state(state.clone(), auth::check))
        .layer(middleware::from_fn(panics::catch))
        .layer(middleware::from_fn_with_state(state.clone(), telemetry::observe))
        .with_state(state)
}

/// The routes that work, with their descriptions.
pub(crate) fn documented() -> OpenApiRouter<ServerState> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sandboxes::create, sandboxes::list))
        .routes(routes!(sandboxes::get, sandboxes::delete))
        .routes(routes!(reconciliation::get))
        .routes(routes!(reconciliation::capabilities))
        .routes(routes!(pausing::pause))
        .routes(routes!(pausing::resume))
        .routes(routes!(observe::events))
        .routes(routes!(observe::logs))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}

/// Paths of the design that later versions will have. They are known, so that nobody takes them for
/// done because an older server said 404.
fn not_built() -> Router<ServerState> {
    Router::new()
        .route("/api/sandboxes/{id}", patch(not_built::update))
        .route("/api/sandboxes/{id}/renew", post(not_built::renew))
        .route("/api/events", get(not_built::all_events))
        .route("/ui", get(not_built::dashboard))
}

async fn no_such_path() -> impl IntoResponse {
    ApiError::own(
        StatusCode::NOT_FOUND,
        "no_such_path",
        "there is nothing at this path; /docs lists what there is",
    )
}

async fn no_such_method() -> impl IntoResponse {
    ApiError::own(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take this method; the Allow header lists those it takes",
    )
}

#[cfg(test)]
mod tests;
