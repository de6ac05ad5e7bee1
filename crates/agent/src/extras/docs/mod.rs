//! What the API is: `/v1/openapi.json` and a page of it.
//!
//! ```text
//!   routes     what each route takes and gives, by the types it is made of
//!   schema     from those types to JSON schemas
//!   document   OpenAPI
//!   page       for people
//! ```
//! All of it is made when it is asked for, so that nothing of it is held in memory.

mod document;
mod page;
pub(crate) mod routes;
pub(crate) mod schema;

use axum::Router;
use axum::response::{Html, Response};
use axum::routing::get;
use http::StatusCode;

use crate::app::App;
use crate::http::reply;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/docs", get(html))
        .route("/index.html", get(html))
        .route("/llms.txt", get(text))
}

async fn openapi() -> Response {
    reply::json(StatusCode::OK, &document::document())
}

async fn html() -> Html<String> {
    Html(page::html())
}

async fn text() -> String {
    page::text()
}
