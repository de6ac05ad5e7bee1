//! Overload is an answer, not a collapse.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use crate::error::ApiError;
use crate::state::ServerState;

/// Creates that run at once. Most of them wait for the end of a former sandbox, or for one another; how many
/// may write at once is the backend's to bound.
const CREATES_RUNNING: usize = 512;
/// Creates that wait for their turn.
const CREATES_WAITING: usize = 256;
/// How long a create waits for its turn: what is left has to do for the create itself.
const CREATE_TURN: Duration = Duration::from_secs(10);
/// Requests below `/api` at once.
const REQUESTS: usize = 1024;
/// Logs that are sent at once. They may last, so they have a bound of their own.
const LOG_STREAMS: usize = 64;

/// All bounds of one server.
pub(crate) struct Limits {
    requests: Arc<Semaphore>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    logs: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            requests: semaphore(REQUESTS),
            running: semaphore(CREATES_RUNNING),
            waiting: semaphore(CREATES_WAITING),
            logs: semaphore(LOG_STREAMS),
        }
    }
}

impl Limits {
    /// A turn to create, first come, first served. Hold it while creating.
    pub(crate) async fn create_turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = || {
            ApiError::overloaded(
                format!("{CREATES_RUNNING} creates run and {CREATES_WAITING} wait already; try again in 2 s"),
                2,
            )
        };
        if let Ok(turn) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(turn);
        }
        let _place = self.waiting.try_acquire().map_err(|_| full())?;
        match time::timeout(CREATE_TURN, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::overloaded(
                format!("no turn to create within {} s; try again in 2 s", CREATE_TURN.as_secs()),
                2,
            )),
        }
    }

    /// Leave to send a log. Hold it while sending.
    pub(crate) fn log_stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.logs).try_acquire_owned().map_err(|_| {
            ApiError::overloaded(format!("{LOG_STREAMS} logs are being sent already; try again in 5 s"), 5)
        })
    }
}

/// Bounds the requests at once. Health, metrics and documents stay reachable.
pub(crate) async fn check(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    match state.limits().requests.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            ApiError::overloaded(format!("{REQUESTS} requests are under way already; try again in 1 s"), 1)
                .into_response()
        }
    }
}
