//! `/auth`: whether the caller may call. `/tickets`: a ticket for one call without a header.

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::json;

use crate::app::App;
use crate::http::{ApiError, reply};

pub(super) const TICKETS: &str = "/tickets";

pub(crate) fn router() -> Router<App> {
    Router::new().route("/auth", get(authenticate)).route(TICKETS, post(ticket))
}

/// Only reached by those who may.
async fn authenticate(State(app): State<App>) -> Response {
    let auth = if app.gate().is_shut() { "jwt" } else { "none" };
    reply::json(StatusCode::OK, &json!({ "status": "ok", "auth": auth }))
}

async fn ticket(State(app): State<App>) -> Result<Response, ApiError> {
    let tickets = &app.gate().tickets;
    let ticket = tickets.issue(Instant::now());
    let ticket = ticket.ok_or_else(|| ApiError::internal("the kernel gives no random bytes"))?;
    let answer = json!({ "ticket": ticket, "expires_in": tickets.life().as_secs() });
    Ok(reply::json(StatusCode::OK, &answer))
}
