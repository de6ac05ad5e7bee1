//! The routes of watchers. They answer without the envelope.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::response::sse::{Event as ServerSent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures::stream;
use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::follow::{Directories, follow};
use super::{Log, Watcher};
use crate::app::App;
use crate::defaults::OnByDefault;
use crate::file::paths::Target;
use crate::file::{Failure, globs, names};
use crate::http::{ApiError, JsonBody, reply};
use crate::seconds::Seconds;

const MAX_WATCHERS: usize = 32;
const EXCLUDED: &[&str] = &["**/.git/**", "**/node_modules/**", "**/__pycache__/**", "**/.venv/**"];

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/file/watch", get(list).post(create))
        .route("/v1/file/watch/wait", post(wait))
        .route("/v1/file/watch/{id}", delete(stop))
        .route("/v1/file/watch/{id}/poll", post(poll))
        .route("/v1/file/watch/{id}/events", get(events))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A directory or file.
    path: String,
    /// Also what lies in directories below.
    recursive: OnByDefault,
    /// Globs of what to leave out; version control and dependencies unless given.
    exclude: Option<Vec<String>>,
    /// Milliseconds in which changes of one kind to one path are one event.
    #[schema(minimum = 50, maximum = 5000, default = 300)]
    debounce: Option<u64>,
    /// Globs of what to tell of; everything unless given.
    include_patterns: Option<Vec<String>>,
}

async fn create(
    State(app): State<App>,
    JsonBody(request): JsonBody<CreateRequest>,
) -> Result<Response, ApiError> {
    let debounce = request.debounce.unwrap_or(300);
    if !(50..=5000).contains(&debounce) {
        return Err(ApiError::invalid("debounce", format!("{debounce} ms is not from 50 to 5000")));
    }
    let excluded =
        request.exclude.unwrap_or_else(|| EXCLUDED.iter().map(|glob| (*glob).to_owned()).collect());
    let included = request.include_patterns.unwrap_or_default();
    let recursive = request.recursive.0;
    let watcher =
        open(&app, request.path, recursive, excluded, included, Duration::from_millis(debounce)).await?;
    let mut watchers = app.watches().by_id.lock();
    if watchers.len() >= MAX_WATCHERS {
        return Err(ApiError::bad_request(format!("there are {MAX_WATCHERS} watchers already; stop one")));
    }
    watchers.insert(watcher.id.clone(), Arc::clone(&watcher));
    Ok(reply::json(StatusCode::OK, &watcher.describe()))
}

async fn open(
    app: &App,
    path: String,
    recursive: bool,
    excluded: Vec<String>,
    included: Vec<String>,
    debounce: Duration,
) -> Result<Arc<Watcher>, ApiError> {
    let target = Target::parse("watch", &path, &app.home()).map_err(|failure| as_http(&failure))?;
    let watcher = Arc::new(Watcher {
        id: uuid::Uuid::new_v4().to_string(),
        root: target.path.clone(),
        only: OnceLock::new(),
        recursive,
        excluded: globs::choice(&target, &[], &excluded).map_err(|failure| as_http(&failure))?,
        included: globs::path_globs(&target, &included).map_err(|failure| as_http(&failure))?,
        debounce,
        log: Mutex::new(Log::default()),
        newest: watch::Sender::new(0),
    });
    let failed = |error: std::io::Error| as_http(&target.failed(&error));
    let mut directories = Directories::new().map_err(failed)?;
    let shared = Arc::clone(&watcher);
    let added = app.pool().run(move || directories.begin(&shared, recursive).map(|()| directories));
    let directories = added.await?.map_err(failed)?;
    tokio::spawn(follow(Arc::clone(&watcher), directories));
    Ok(watcher)
}

/// These routes have no envelope to put a failure into.
fn as_http(failure: &Failure) -> ApiError {
    ApiError::new(failure.http_status(), failure.message())
}

fn find(app: &App, id: &str) -> Result<Arc<Watcher>, ApiError> {
    let found = app.watches().by_id.lock().get(id).cloned();
    found.ok_or_else(|| ApiError::not_found(format!("there is no watcher {id:?}")))
}

async fn list(State(app): State<App>) -> Response {
    let watchers: Vec<_> = app.watches().by_id.lock().values().map(|watcher| watcher.describe()).collect();
    reply::json(StatusCode::OK, &json!({ "watchers": watchers }))
}

async fn stop(State(app): State<App>, UrlPath(id): UrlPath<String>) -> Result<Response, ApiError> {
    let watcher = find(&app, &id)?;
    app.watches().by_id.lock().remove(&id);
    // Wakes the task that follows, and everyone who waits for events.
    watcher.newest.send_modify(|_| {});
    Ok(reply::json(StatusCode::OK, &json!({ "watcher_id": id, "stopped": true })))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct PollRequest {
    /// Events after this one; also called `since`.
    #[serde(alias = "since")]
    #[schema(default = 0)]
    cursor: Option<u64>,
    /// Events at most, from 1 to 1,000.
    #[schema(default = 100)]
    limit: Option<usize>,
    /// Seconds to wait for an event, never more than 300; none unless given.
    timeout: Option<Seconds>,
}

async fn poll(
    State(app): State<App>,
    UrlPath(id): UrlPath<String>,
    JsonBody(request): JsonBody<PollRequest>,
) -> Result<Response, ApiError> {
    let watcher = find(&app, &id)?;
    let cursor = request.cursor.unwrap_or(0);
    let limit = request.limit.unwrap_or(100).clamp(1, 1000);
    let patience = request.timeout.map_or(Duration::ZERO, Seconds::duration).min(Duration::from_secs(300));
    let mut newest = watcher.newest.subscribe();
    let _ = tokio::time::timeout(patience, newest.wait_for(|seq| *seq > cursor)).await;
    let (events, cursor, overflow) = watcher.since(cursor, limit);
    Ok(reply::json(StatusCode::OK, &json!({ "events": events, "cursor": cursor, "overflow": overflow })))
}

async fn events(State(app): State<App>, UrlPath(id): UrlPath<String>) -> Result<Response, ApiError> {
    let watcher = find(&app, &id)?;
    let started = ServerSent::default().event("watch_started").data(watcher.describe().to_string());
    let state =
        (Arc::downgrade(&watcher), watcher.newest.subscribe(), watcher.log.lock().last, Some(started));
    let follow = stream::unfold(state, |(watcher, mut newest, cursor, first)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, Infallible>(first), (watcher, newest, cursor, None)));
        }
        loop {
            let (mut events, next, lost) = watcher.upgrade()?.since(cursor, 1);
            if let Some(event) = events.pop() {
                let id = format!("{}:{}", watcher.upgrade()?.id, event.seq);
                let data = serde_json::to_string(&event).unwrap_or_default();
                let sent = ServerSent::default()
                    .event(if lost { "overflow" } else { "file_change" })
                    .id(id)
                    .data(data);
                return Some((Ok(sent), (watcher, newest, next, None)));
            }
            newest.changed().await.ok()?;
        }
    });
    Ok(Sse::new(follow).keep_alive(KeepAlive::default()).into_response())
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct WaitRequest {
    /// What is waited for; it need not exist.
    path: String,
    /// Seconds, from 1 to 300; 30 unless given.
    timeout: Option<Seconds>,
    /// Of `create`, `write`, `remove`, `rename` and `chmod`; all unless given.
    event_types: Option<Vec<String>>,
}

async fn wait(
    State(app): State<App>,
    JsonBody(request): JsonBody<WaitRequest>,
) -> Result<Response, ApiError> {
    let patience = request.timeout.map_or(Duration::from_secs(30), Seconds::duration);
    let deadline = Instant::now() + patience.clamp(Duration::from_secs(1), Duration::from_secs(300));
    let target = Target::parse("watch", &request.path, &app.home()).map_err(|failure| as_http(&failure))?;
    // What is waited for may not exist yet, so its directory is watched.
    let parent = if target.path.is_dir() {
        Some(target.path.clone())
    } else {
        target.path.parent().map(Path::to_path_buf)
    };
    let parent = names::shown(&parent.unwrap_or_else(|| PathBuf::from("/"))).into_owned();
    let watcher = open(&app, parent, false, Vec::new(), Vec::new(), Duration::from_millis(50)).await?;
    let wanted =
        |kind: &str| request.event_types.as_ref().is_none_or(|types| types.iter().any(|t| t == kind));
    let asked_for_create =
        request.event_types.as_ref().is_some_and(|types| types.iter().any(|t| t == "create"));
    if asked_for_create && target.path.exists() {
        watcher.record("create", &target.path, None, target.path.is_dir());
    }
    let mut newest = watcher.newest.subscribe();
    let mut cursor = 0;
    loop {
        let (events, next, _) = watcher.since(cursor, 1000);
        cursor = next;
        let hit = events
            .into_iter()
            .find(|event| wanted(event.kind) && (target.path.is_dir() || event.path == target.text));
        if let Some(event) = hit {
            return Ok(reply::json(StatusCode::OK, &json!({ "event": event })));
        }
        match tokio::time::timeout_at(deadline, newest.changed()).await {
            Ok(Ok(())) => {}
            _ => {
                let message = format!("nothing happened to {} in time", target.text);
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        }
    }
}
