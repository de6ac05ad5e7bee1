//! Making, finding and ending sandboxes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use stockade_api::sandbox::{ListOf, Sandbox, View};
use stockade_api::{
    CheckedCreate, ConflictBody, CreateSandbox, Deleted, ErrorBody, InvalidRequest, MountContractChanged,
};
use stockade_api::{create, query};
use stockade_core::{Backend, BackendError, ContractVersion, SandboxId};
use tokio::time::{self, Instant};

use crate::body::JsonBody;
use crate::deadline::{self, Deadline};
use crate::error::{self, ApiError};
use crate::path::PathId;
use crate::query::Pairs;
use crate::state::ServerState;
use crate::telemetry::About;

/// About how many bytes a sandbox has in a list.
const BYTES_IN_LIST: usize = 384;

/// Make a sandbox
///
/// The same id again returns the sandbox that is there, when it is the same one.
#[utoipa::path(
    post, path = "/api/sandboxes", tag = "sandboxes", security(("key" = [])),
    params(
        ("wait" = Option<String>, Query, description = "`ready`: answer when the sandbox is ready"),
        ("timeout" = Option<u8>, Query, minimum = 1, maximum = 25,
         description = "How many seconds to wait at most; then the answer is 200 with `ready: false`"),
    ),
    request_body = CreateSandbox,
    responses(
        (status = 200, description = "It is there", body = Sandbox<'_>),
        (status = 400, description = "A mount that is not allowed", body = ErrorBody),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 409, description = "Another sandbox has the id, or another mount contract is required",
         body = ConflictBody),
        (status = 413, description = "More than 1 MiB", body = ErrorBody),
        (status = 415, description = "Not JSON", body = ErrorBody),
        (status = 422, description = "Fields that are wrong", body = InvalidRequest),
        (status = 429, description = "Too much is under way", body = ErrorBody),
        (status = 503, description = "The backend does not answer, has no room, or still ends the last one",
         body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(state): State<ServerState>,
    Pairs(pairs): Pairs,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let deadline = Deadline::start("create", deadline::CREATE);
    let request = create::decode(&body, state.backend().capabilities())?;
    let wait = query::decode_wait(&pairs)?;
    check_contract(&state, &request)?;
    let id = request.spec.id.clone();
    let mut response = match make(&state, request, wait, deadline).await {
        Ok(sandbox) => answer(&sandbox, state.view()),
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    response.extensions_mut().insert(About(id));
    Ok(response)
}

/// Contract 1 does not know the field.
fn check_contract(state: &ServerState, request: &CheckedCreate) -> Result<(), ApiError> {
    let served = state.backend().capabilities().contract;
    match request.required_mount_contract_version {
        Some(required) if served >= ContractVersion::V2 && required != i64::from(served.number()) => {
            Err(ApiError::MountContract(MountContractChanged::new(required, served.number())))
        }
        _ => Ok(()),
    }
}

async fn make(
    state: &ServerState,
    request: CheckedCreate,
    wait: Option<Duration>,
    deadline: Deadline,
) -> Result<Arc<stockade_core::Sandbox>, ApiError> {
    let turn = state.limits().create_turn().await?;
    let backend = state.backend();
    let id = request.spec.id.clone();
    let sandbox = deadline
        .write(async move {
            let made = backend.create(&request.spec, deadline.for_backend().into_std()).await;
            // Held by the work and not by the caller: who hangs up does not make room.
            drop(turn);
            made
        })
        .await?;
    match wait {
        Some(patience) if !sandbox.ready => {
            let until = deadline.for_backend().min(Instant::now() + patience);
            Ok(wait_ready(&*state.backend(), &id, until).await?.unwrap_or(sandbox))
        }
        Some(_) => Ok(sandbox),
        // Who asked for no wait may have one all the same, if that is the shorter way to the first answer. The turn
        // is given back by now.
        None => Ok(state.backend().wait_answering(sandbox, deadline.for_backend().into_std()).await),
    }
}

/// The sandbox as it is when it is ready or the time is up; `None` when the backend had no answer.
async fn wait_ready(
    backend: &dyn Backend,
    id: &SandboxId,
    until: Instant,
) -> Result<Option<Arc<stockade_core::Sandbox>>, BackendError> {
    let patience = until + deadline::MARGIN;
    match time::timeout_at(patience, backend.wait_ready(id, until.into_std())).await {
        Ok(result) => result.map(Some),
        Err(_) => Ok(None),
    }
}

/// Find a sandbox
#[utoipa::path(
    get, path = "/api/sandboxes/{id}", tag = "sandboxes", security(("key" = [])),
    params(
        ("id" = String, Path, description = "Names the sandbox"),
        ("wait" = Option<String>, Query, description = "`ready`: answer when the sandbox is ready"),
        ("timeout" = Option<u8>, Query, minimum = 1, maximum = 25,
         description = "How many seconds to wait at most; then the answer is 200 with `ready: false`"),
    ),
    responses(
        (status = 200, description = "It is there", body = Sandbox<'_>),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such sandbox", body = ErrorBody),
        (status = 422, description = "Parameters that are wrong", body = InvalidRequest),
        (status = 503, description = "The backend does not answer", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
    Pairs(pairs): Pairs,
) -> Result<Response, ApiError> {
    let wait = query::decode_wait(&pairs)?;
    let Some(id) = id else { return Err(ApiError::no_such_sandbox(&asked)) };
    let backend = state.backend();
    let deadline = Deadline::start("get", deadline::READ);
    let found = deadline.read(backend.get(&id)).await?;
    let mut sandbox = found.ok_or(BackendError::NotFound { id: id.clone() })?;
    if let Some(patience) = wait
        && !sandbox.ready
    {
        let until = Instant::now() + patience;
        sandbox = wait_ready(&*backend, &id, until).await?.unwrap_or(sandbox);
    }
    Ok(answer(&sandbox, state.view()))
}

/// List the sandboxes
///
/// Those without an address yet are left out.
#[utoipa::path(
    get, path = "/api/sandboxes", tag = "sandboxes", security(("key" = [])),
    responses(
        (status = 200, description = "All of them, in the order of their ids", body = stockade_api::SandboxList),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 503, description = "The backend does not answer", body = ErrorBody),
    )
)]
pub(super) async fn list(State(state): State<ServerState>) -> Result<Response, ApiError> {
    let backend = state.backend();
    let sandboxes = Deadline::start("list", deadline::READ).read(backend.list()).await?;
    let size = sandboxes.len() * BYTES_IN_LIST + 64;
    Ok(error::answer_of_size(StatusCode::OK, &ListOf::new(&sandboxes, state.view()), size))
}

/// End a sandbox
///
/// Also a success when there is none.
#[utoipa::path(
    delete, path = "/api/sandboxes/{id}", tag = "sandboxes", security(("key" = [])),
    params(("id" = String, Path, description = "Names the sandbox")),
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = 401, description = "No key, or another one", body = String, content_type = "text/plain"),
        (status = 500, description = "Something could not be removed", body = ErrorBody),
        (status = 503, description = "The backend does not answer", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(state): State<ServerState>,
    PathId { asked, id }: PathId,
) -> Result<Response, ApiError> {
    if let Some(id) = id {
        let backend = state.backend();
        let work = async move { backend.delete(&id).await };
        Deadline::start("delete", deadline::DELETE).write(work).await?;
    }
    Ok(error::answer(StatusCode::OK, &Deleted::new(&asked)))
}

fn answer(sandbox: &stockade_core::Sandbox, view: View) -> Response {
    error::answer(StatusCode::OK, &Sandbox::of(sandbox, view))
}
