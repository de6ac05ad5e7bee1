//! `GET /terminal`: a terminal in a browser, on top of the WebSocket. The emulator is xterm.js
//! (`third_party/xterm`), kept and sent compressed.

use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::header;

use crate::app::App;

const PAGE: &str = include_str!("terminal.html");
const SCRIPT: &[u8] = include_bytes!("../../third_party/xterm/xterm.js.gz");
const STYLE: &[u8] = include_bytes!("../../third_party/xterm/xterm.css.gz");
/// Where the page finds them. The version is in the address, so that browsers may keep them.
pub(crate) const ASSETS: &str = "/static/sandbox/xterm@5.5.0/";

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/terminal", get(async || Html(PAGE)))
        .route("/static/sandbox/xterm@5.5.0/xterm.js", get(async || asset("text/javascript", SCRIPT)))
        .route("/static/sandbox/xterm@5.5.0/xterm.css", get(async || asset("text/css", STYLE)))
}

/// Every browser unpacks gzip, so there is no other form.
fn asset(content_type: &'static str, packed: &'static [u8]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_ENCODING, "gzip"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, packed).into_response()
}
