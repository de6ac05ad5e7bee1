//! Looking into one sandbox: what happened to it, what it wrote.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{StatusCode, header};
use stockade_api::{ErrorBody, EventList, InvalidRequest, query};
use stockade_core::BackendError;
use stockade_core::backend::{LogOptions, LogStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{self, Instant};

use crate::deadline::{self, Deadline};
use crate::error::{self, ApiError};
use crate::path::PathId;
use crate::query::Pairs;
use crate::state::ServerState;

/// The most bytes of one log answer. A sandbox can write lines of any length.
const MAX_LOG: usize = 64 * 1024 * 1024;
/// How long one log answer may last when it follows what is written.
const MAX_FOLLOW: Duration = Duration::from_secs(3600);
/// How long one log answer may last otherwise.
const MAX_PLAIN: Duration = Duration::from_secs(60);

/// What happened to a sandbox lately
#[utoipa::path(
    get, path = "/api/sandboxes/{id}/events", tag = "sandboxes", security(("key" = [])),
    params(("id" = String, Path, description = "Names the sandbox")),
    responses(
        (status = 200, description = "Oldest first", body = EventList),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such sandbox", body = ErrorBody),
        (status = 501, description = "The backend cannot say", body = ErrorBody),
    )
)]
pub(super) async fn events(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
) -> Result<Response, ApiError> {
    let Some(id) = id else { return Err(ApiError::no_such_sandbox(&asked)) };
    let backend = state.backend();
    let events = Deadline::start("events", deadline::READ).read(backend.events(&id)).await?;
    Ok(error::answer(StatusCode::OK, &events.into_iter().collect::<EventList>()))
}

/// What a sandbox's main process wrote
#[utoipa::path(
    get, path = "/api/sandboxes/{id}/logs", tag = "sandboxes", security(("key" = [])),
    params(
        ("id" = String, Path, description = "Names the sandbox"),
        ("follow" = Option<bool>, Query, description = "Keep sending what is written from now on"),
        ("tail" = Option<u32>, Query, maximum = 10_000, description = "How many of the last lines to begin with (500)"),
        ("previous" = Option<bool>, Query, description = "Of the process before the last restart"),
    ),
    responses(
        (status = 200, description = "As it was written", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such sandbox", body = ErrorBody),
        (status = 422, description = "Parameters that are wrong", body = InvalidRequest),
        (status = 429, description = "Too many logs are being sent", body = ErrorBody),
    )
)]
pub(super) async fn logs(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
    Pairs(pairs): Pairs,
) -> Result<Response, ApiError> {
    let query = query::decode_logs(&pairs)?;
    let Some(id) = id else { return Err(ApiError::no_such_sandbox(&asked)) };
    let options = LogOptions { follow: query.follow, tail_lines: query.tail, previous: query.previous };
    let permit = state.limits().log_stream()?;
    let backend = state.backend();
    let log = Deadline::start("logs", deadline::READ).read(backend.logs(&id, options)).await?;
    let lasts = if query.follow { MAX_FOLLOW } else { MAX_PLAIN };
    let body = Body::from_stream(bounded(log, MAX_LOG, lasts, permit));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// The log until it ends, fails, or has had its size or its time.
fn bounded(
    log: LogStream,
    bytes: usize,
    lasts: Duration,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, BackendError>> {
    let end = Instant::now() + lasts;
    stream::unfold(Some((log, bytes, permit)), move |state| async move {
        let (mut log, left, permit) = state?;
        match time::timeout_at(end, log.next()).await {
            Ok(Some(Ok(mut piece))) => {
                piece.truncate(left);
                let left = left - piece.len();
                Some((Ok(piece), (left > 0).then_some((log, left, permit))))
            }
            Ok(Some(Err(error))) => {
                tracing::warn!(error = ?error, "a log broke off");
                Some((Err(error), None))
            }
            Ok(None) | Err(_) => None,
        }
    })
}
