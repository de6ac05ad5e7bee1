//! `/v1/shell/sessions` and `/v1/shell/terminal-url`: sessions themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::registry::{AUTOMATIC_IDLE, NewSession};
use super::routes::{Answer, usable_directory};
use super::session::Session;
use super::state::Status;
use crate::app::App;
use crate::clock;
use crate::defaults::OffByDefault;
use crate::http::{ApiError, JsonBody, ok};
use crate::seconds::Seconds;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/shell/sessions/create", post(create))
        .route("/v1/shell/sessions/update", post(update))
        .route("/v1/shell/sessions", get(list).delete(remove_all))
        .route("/v1/shell/sessions/stats", get(stats))
        .route("/v1/shell/sessions/{id}", delete(remove))
        .route("/v1/shell/terminal-url", get(terminal_url))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A name for it, without a slash. A session of that name that is there is returned as it is.
    #[schema(max_length = 128)]
    id: Option<String>,
    /// An absolute path of a directory to start in.
    exec_dir: Option<String>,
    /// Seconds a command may print nothing before its caller is told; 120 unless given.
    no_change_timeout: Option<Seconds>,
    /// Keep symbolic links in `exec_dir`, instead of resolving them.
    preserve_symlinks: OffByDefault,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CreateResult {
    session_id: String,
    working_dir: String,
}

async fn create(State(app): State<App>, JsonBody(request): JsonBody<CreateRequest>) -> Answer {
    let physical = !request.preserve_symlinks.0;
    let directory = match request.exec_dir.as_deref() {
        Some(asked) => usable_directory(Some(asked), physical).ok_or_else(|| {
            ApiError::bad_request(format!("exec_dir {asked:?} is not an absolute path of a directory"))
        })?,
        None => app.workspace(),
    };
    let no_change = request.no_change_timeout.map(Seconds::duration);
    let id = request.id.filter(|id| !id.is_empty());
    // A session that somebody asks for is meant to last, even when its id is left to us.
    let id = Some(id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()));
    let session = app.shells().create(NewSession { id, directory, no_change }).await?;
    let working_dir = session.directory().to_string_lossy().into_owned();
    Ok(ok("Session created", CreateResult { session_id: session.id.clone(), working_dir }))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct UpdateRequest {
    /// The session.
    id: String,
    /// Seconds a command may print nothing before its caller is told, also the one in progress; 120 unless given.
    no_change_timeout: Option<Seconds>,
}

async fn update(State(app): State<App>, JsonBody(request): JsonBody<UpdateRequest>) -> Answer {
    app.shells().get(&request.id)?.update(request.no_change_timeout.map(Seconds::duration));
    Ok(ok("Session updated", ()))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    working_dir: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    last_used_at: String,
    age_seconds: u64,
    status: Status,
    /// The command in progress.
    current_command: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Sessions {
    /// By id.
    sessions: BTreeMap<String, SessionInfo>,
}

async fn list(State(app): State<App>) -> Answer {
    let sessions =
        app.shells().all().into_iter().map(|session| (session.id.clone(), info(&session))).collect();
    Ok(ok("Sessions", Sessions { sessions }))
}

fn info(session: &Arc<Session>) -> SessionInfo {
    let running = session.last().and_then(|last| {
        let last = last.lock();
        last.is_live().then(|| last.command.clone())
    });
    SessionInfo {
        working_dir: session.directory().to_string_lossy().into_owned(),
        created_at: clock::iso(session.created),
        last_used_at: clock::iso(session.last_used()),
        age_seconds: session.created.elapsed().unwrap_or_default().as_secs(),
        status: session.status(),
        current_command: running,
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Stats {
    total_sessions: usize,
    /// A command runs in them, or what one has left running.
    active_sessions: usize,
    idle_sessions: usize,
    max_sessions: usize,
    /// Seconds after which an idle session without a name is ended.
    session_timeout: u64,
    /// From 0 to 1.
    usage_ratio: f64,
    /// Processes of the sandbox that the kernel has ended because its memory was used up, so far.
    killed_for_memory: u64,
}

async fn stats(State(app): State<App>) -> Answer {
    let all = app.shells().all();
    let total = all.len();
    let count = move || all.iter().filter(|session| session.is_active()).count();
    let active = app.pool().run(count).await?;
    let max = app.shells().max;
    let stats = Stats {
        total_sessions: total,
        active_sessions: active,
        idle_sessions: total - active,
        max_sessions: max,
        session_timeout: AUTOMATIC_IDLE.as_secs(),
        usage_ratio: ratio(total, max),
        killed_for_memory: app.bashes().surroundings.kills.count(),
    };
    Ok(ok("Session statistics", stats))
}

fn ratio(part: usize, whole: usize) -> f64 {
    let (part, whole) = (u32::try_from(part).unwrap_or(u32::MAX), u32::try_from(whole).unwrap_or(u32::MAX));
    f64::from(part) / f64::from(whole.max(1))
}

async fn remove(State(app): State<App>, Path(id): Path<String>) -> Answer {
    app.shells().remove(&id).await?;
    Ok(ok("Session closed", ()))
}

async fn remove_all(State(app): State<App>) -> Answer {
    let count = app.shells().remove_all().await;
    Ok(ok(&format!("{count} sessions closed"), ()))
}

async fn terminal_url(State(app): State<App>, headers: HeaderMap) -> Answer {
    let new = NewSession { id: None, directory: app.workspace(), no_change: None };
    let session = app.shells().create(new).await?;
    let host =
        headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:8080");
    Ok(ok("Terminal URL", format!("http://{host}/terminal?session_id={}", session.id)))
}
