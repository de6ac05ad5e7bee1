//! Stopping a sandbox where it is, and letting it run on.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use stockade_api::ErrorBody;
use stockade_api::sandbox::Sandbox;

use crate::deadline::{self, Deadline};
use crate::error::{self, ApiError};
use crate::path::PathId;
use crate::state::ServerState;

/// Stop a sandbox's processes where they are
///
/// They keep their memory and use no processor. The next connection to the sandbox wakes them, and so does
/// resume. Also a success when it is paused.
#[utoipa::path(
    post, path = "/api/sandboxes/{id}/pause", tag = "sandboxes", security(("key" = [])),
    params(("id" = String, Path, description = "Names the sandbox")),
    responses(
        (status = 200, description = "It is paused", body = Sandbox<'_>),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such sandbox", body = ErrorBody),
        (status = 409, description = "It does not run", body = ErrorBody),
        (status = 501, description = "The backend cannot", body = ErrorBody),
    )
)]
pub(super) async fn pause(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
) -> Result<Response, ApiError> {
    let Some(id) = id else { return Err(ApiError::no_such_sandbox(&asked)) };
    let backend = state.backend();
    let work = async move { backend.pause(&id).await };
    let sandbox = Deadline::start("pause", deadline::READ).write(work).await?;
    Ok(error::answer(StatusCode::OK, &Sandbox::of(&sandbox, state.view())))
}

/// Let a paused sandbox run on
///
/// Also a success when it runs.
#[utoipa::path(
    post, path = "/api/sandboxes/{id}/resume", tag = "sandboxes", security(("key" = [])),
    params(("id" = String, Path, description = "Names the sandbox")),
    responses(
        (status = 200, description = "It runs", body = Sandbox<'_>),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such sandbox", body = ErrorBody),
        (status = 501, description = "The backend cannot", body = ErrorBody),
    )
)]
pub(super) async fn resume(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
) -> Result<Response, ApiError> {
    let Some(id) = id else { return Err(ApiError::no_such_sandbox(&asked)) };
    let backend = state.backend();
    let work = async move { backend.resume(&id).await };
    let sandbox = Deadline::start("resume", deadline::READ).write(work).await?;
    Ok(error::answer(StatusCode::OK, &Sandbox::of(&sandbox, state.view())))
}
