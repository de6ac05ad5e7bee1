//! A net under the handlers: a panic is one failed request and a line in the log.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::StatusCode;

use crate::error::{ApiError, Cause};

/// Turns a panic into a 500 that says nothing of it.
pub(crate) async fn catch(request: Request, next: Next) -> Response {
    // Nothing that a handler shares is left half changed: it shares semaphores, metrics and the backend,
    // whose own locks do not outlive a call.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(payload) => {
            let mut response = ApiError::own(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "internal error; the log of the server has more under this X-Request-Id",
            )
            .into_response();
            response.extensions_mut().insert(Cause(format!("panic: {}", text_of(&*payload))));
            response
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
