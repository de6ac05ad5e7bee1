//! What is answered while the backend is not there yet: a kubeconfig may be waited for half a minute, and a
//! health check must not end the server meanwhile.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::ServiceExt;

use super::health;
use crate::error::ApiError;

/// A server that lives and cannot do anything until it is told that it has started. It is one server all the time:
/// connections that were opened before go on afterwards, and no request falls between two servers.
#[derive(Debug, Clone, Default)]
pub struct Starting {
    started: Arc<OnceLock<Router>>,
}

impl Starting {
    /// What answers from the first moment on.
    pub fn router(&self) -> Router {
        let (started, meanwhile) = (Arc::clone(&self.started), meanwhile());
        let answer = move |request: Request| {
            let router = started.get().unwrap_or(&meanwhile).clone();
            async move { Ok::<_, Infallible>(answer(router, request).await) }
        };
        Router::new().fallback_service(tower::service_fn(answer))
    }

    /// From now on this one answers. Said twice, the first holds.
    pub fn started(&self, router: Router) {
        // Who says it twice has the same to say.
        let _ = self.started.set(router);
    }
}

async fn answer(router: Router, request: Request) -> Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn meanwhile() -> Router {
    Router::new().route("/health", get(health::health)).route("/healthz", get(health::live)).fallback(not_yet)
}

async fn not_yet() -> Response {
    ApiError::unavailable("starting", "the server is starting and has no backend yet; try again in 2 s", 2)
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, StatusCode, header};

    use super::*;

    async fn ask(router: &Router, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn it_lives_and_asks_for_patience() {
        let router = Starting::default().router();
        for (method, path, status) in [
            (Method::GET, "/health", StatusCode::OK),
            (Method::GET, "/healthz", StatusCode::OK),
            (Method::GET, "/api/sandboxes", StatusCode::SERVICE_UNAVAILABLE),
            (Method::POST, "/api/sandboxes", StatusCode::SERVICE_UNAVAILABLE),
            (Method::DELETE, "/api/sandboxes/s1", StatusCode::SERVICE_UNAVAILABLE),
            (Method::GET, "/readyz", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let answer = ask(&router, method, path).await;
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(
                answer.headers().contains_key(header::RETRY_AFTER),
                status != StatusCode::OK,
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_opened_before_is_answered_by_what_has_started() {
        let starting = Starting::default();
        let router = starting.router();
        assert_eq!(ask(&router, Method::GET, "/x").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        starting.started(Router::new().route("/x", get(async || "here")));
        assert_eq!(ask(&router, Method::GET, "/x").await.status(), StatusCode::OK);
        assert_eq!(ask(&router, Method::GET, "/healthz").await.status(), StatusCode::NOT_FOUND);
    }
}
