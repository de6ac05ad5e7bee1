//! Endpoints of the design that this version does not have: 501 by name, never 404.

use axum::response::IntoResponse;

use crate::error::ApiError;

pub(super) async fn update() -> impl IntoResponse {
    ApiError::not_built("changing a sandbox")
}

pub(super) async fn renew() -> impl IntoResponse {
    ApiError::not_built("renewing a sandbox's lease")
}

pub(super) async fn all_events() -> impl IntoResponse {
    ApiError::not_built("the stream of all events")
}

pub(super) async fn dashboard() -> impl IntoResponse {
    ApiError::not_built("the dashboard")
}
