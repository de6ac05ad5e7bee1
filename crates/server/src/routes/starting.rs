//! What is answered while the backend is not there yet: a kubeconfig may be waited for half a minute, and a
//! health check must not end the server meanwhile.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health;
use crate::error::ApiError;

/// A server that lives and cannot do anything yet.
pub fn starting_router() -> Router {
    Router::new().route("/health", get(health::health)).route("/healthz", get(health::live)).fallback(not_yet)
}

async fn not_yet() -> Response {
    ApiError::unavailable("starting", "the server is starting and has no backend yet; try again in 2 s", 2)
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode, header};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn it_lives_and_asks_for_patience() {
        for (path, status) in
            [("/health", StatusCode::OK), ("/api/sandboxes", StatusCode::SERVICE_UNAVAILABLE)]
        {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = starting_router().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), status != StatusCode::OK);
        }
    }
}
