//! `/auth` and `/tickets`. Nothing is protected by a token yet: a start with `JWT_PUBLIC_KEY` is refused instead of
//! pretending (see options), so everyone is authenticated and a ticket is only a name.

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::http::reply;

const TICKET_SECONDS: u64 = 30;

pub(crate) fn router() -> Router<App> {
    Router::new().route("/auth", get(authenticate)).route("/tickets", post(ticket))
}

async fn authenticate() -> Response {
    reply::json(StatusCode::OK, &json!({ "status": "ok", "auth": "none" }))
}

async fn ticket() -> Response {
    reply::json(
        StatusCode::OK,
        &json!({ "ticket": Uuid::new_v4().to_string(), "expires_in": TICKET_SECONDS }),
    )
}
