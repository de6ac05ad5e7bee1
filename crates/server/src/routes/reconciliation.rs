//! What callers ask before they rely on this server: what it can do, and what is true.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use stockade_api::{Capabilities, ErrorBody, Reconciliation};

use crate::deadline::{self, Deadline};
use crate::error::{self, ApiError};
use crate::path::PathId;
use crate::state::ServerState;

/// Ask the backend itself whether a sandbox is there
///
/// Never answered from memory: callers delete by it.
#[utoipa::path(
    get, path = "/api/reconciliation/sandboxes/{id}", tag = "sandboxes", security(("key" = [])),
    operation_id = "reconcile",
    params(("id" = String, Path, description = "Names the sandbox")),
    responses(
        (status = 200, description = "The truth", body = Reconciliation),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 503, description = "The backend does not answer", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
) -> Result<Response, ApiError> {
    let backend = state.backend();
    let deadline = Deadline::start("reconciliation", deadline::READ);
    let truth = match id {
        Some(id) => deadline.read(backend.reconcile(&id)).await?,
        None => stockade_core::sandbox::Reconciliation {
            backend_namespace: deadline.read(backend.namespace_id()).await?,
            found: None,
        },
    };
    Ok(error::answer(StatusCode::OK, &Reconciliation::of(&asked, truth, state.view())))
}

/// What this server can provide
#[utoipa::path(
    get, path = "/api/capabilities", tag = "server", security(("key" = [])),
    responses(
        (status = 200, description = "What it can provide", body = Capabilities),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn capabilities(State(state): State<ServerState>) -> Response {
    error::answer(StatusCode::OK, &Capabilities::from(state.backend().capabilities()))
}
