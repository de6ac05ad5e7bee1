//! `/v1/file/watch`: what changes below a directory, told by inotify.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::{Event as ServerSent, KeepAlive, Sse};
use axum::routing::{delete, get, post};
use futures::stream;
use globset::GlobSet;
use http::StatusCode;
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::paths::Target;
use super::walk;
use crate::app::App;
use crate::clock;
use crate::http::{ApiError, JsonBody, reply};
use crate::seconds::Seconds;
use crate::shell::terminal::watch_descriptor;

const MAX_WATCHERS: usize = 32;
/// Events one watcher keeps for those who poll; older ones are lost, and the answer says so.
const KEPT: usize = 4096;
/// Directories one watcher follows.
const MAX_DIRECTORIES: usize = 16_384;
const EXCLUDED: &[&str] = &["**/.git/**", "**/node_modules/**", "**/__pycache__/**", "**/.venv/**"];

#[derive(Debug, Clone, Serialize)]
struct Event {
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    relative_path: String,
    old_path: Option<String>,
    is_dir: bool,
    timestamp: String,
    mtime: Option<i64>,
    size: Option<u64>,
    inode: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Watches {
    by_id: Mutex<BTreeMap<String, Arc<Watcher>>>,
}

struct Watcher {
    id: String,
    root: PathBuf,
    recursive: bool,
    excluded: GlobSet,
    included: GlobSet,
    debounce: Duration,
    log: Mutex<Log>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    last: u64,
    overflowed: bool,
}

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/file/watch", get(list).post(create))
        .route("/v1/file/watch/wait", post(wait))
        .route("/v1/file/watch/{id}", delete(stop))
        .route("/v1/file/watch/{id}/poll", post(poll))
        .route("/v1/file/watch/{id}/events", get(events))
}

impl Watcher {
    fn since(&self, cursor: u64, limit: usize) -> (Vec<Event>, u64, bool) {
        let log = self.log.lock();
        let oldest = log.events.front().map_or(log.last + 1, |event| event.seq);
        let lost = cursor + 1 < oldest || log.overflowed;
        let events: Vec<_> =
            log.events.iter().filter(|event| event.seq > cursor).take(limit).cloned().collect();
        let next = events.last().map_or(cursor.min(log.last), |event| event.seq);
        (events, next, lost)
    }

    fn describe(&self) -> serde_json::Value {
        json!({
            "watcher_id": self.id, "path": self.root, "recursive": self.recursive,
            "debounce": u64::try_from(self.debounce.as_millis()).unwrap_or(0), "cursor": self.log.lock().last,
        })
    }

    fn wants(&self, path: &Path) -> bool {
        !self.excluded.is_match(path) && (self.included.is_empty() || self.included.is_match(path))
    }

    fn record(&self, kind: &'static str, path: &Path, old: Option<&Path>, is_dir: bool) {
        let metadata = std::fs::symlink_metadata(path).ok();
        let mut log = self.log.lock();
        log.last += 1;
        let event = Event {
            seq: log.last,
            kind,
            path: path.to_string_lossy().into_owned(),
            relative_path: path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned(),
            old_path: old.map(|old| old.to_string_lossy().into_owned()),
            is_dir,
            timestamp: clock::iso(SystemTime::now()),
            mtime: metadata.as_ref().map(MetadataExt::mtime),
            size: metadata.as_ref().map(MetadataExt::size),
            inode: metadata.as_ref().map(MetadataExt::ino),
        };
        if log.events.len() == KEPT {
            log.events.pop_front();
        }
        log.events.push_back(event);
        self.newest.send_replace(log.last);
    }
}

/// The kernel's side of a watcher: which directory each of its numbers means.
struct Directories {
    fd: AsyncFd<OwnedFd>,
    paths: HashMap<i32, PathBuf>,
}

impl Directories {
    fn new() -> std::io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd: watch_descriptor(fd)?, paths: HashMap::new() })
    }

    /// Watches `path` and, when `deep`, the directories below. What cannot be watched is left out.
    fn add(&mut self, watcher: &Watcher, path: &Path, deep: bool) -> std::io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB;
        let number = inotify::add_watch(self.fd.get_ref(), path, flags)?;
        self.paths.insert(number, path.to_path_buf());
        if !deep || !path.is_dir() {
            return Ok(());
        }
        for entry in std::fs::read_dir(path)?.filter_map(Result::ok) {
            let below = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory
                && !watcher.excluded.is_match(below.join("x"))
                && self.paths.len() < MAX_DIRECTORIES
            {
                let _ = self.add(watcher, &below, true);
            }
        }
        Ok(())
    }

    /// Reads what the kernel has to tell. An error of kind `WouldBlock`: nothing more.
    fn read(&mut self, watcher: &Watcher, pending: &mut Pending) -> std::io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut found = Vec::new();
        {
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                let event = reader.next()?;
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                found.push((event.wd(), event.events(), event.cookie(), name));
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        for (number, flags, cookie, name) in found {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                watcher.log.lock().overflowed = true;
                continue;
            }
            let Some(directory) = self.paths.get(&number) else { continue };
            let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
            let is_dir = flags.contains(ReadFlags::ISDIR);
            if is_dir && watcher.recursive && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                let _ = self.add(watcher, &path, true);
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.paths.remove(&number);
            } else {
                pending.note(flags, path, cookie, is_dir);
            }
        }
        Ok(())
    }
}

/// Changes gathered until the debounce time is over: several of one kind to one path are one event.
#[derive(Default)]
struct Pending {
    changes: Vec<(&'static str, PathBuf, Option<PathBuf>, bool)>,
    moved_from: HashMap<u32, PathBuf>,
    due: Option<Instant>,
}

impl Pending {
    fn note(&mut self, flags: ReadFlags, path: PathBuf, cookie: u32, is_dir: bool) {
        let mut old = None;
        let kind = if flags.contains(ReadFlags::MOVED_FROM) {
            self.moved_from.insert(cookie, path);
            return;
        } else if flags.contains(ReadFlags::MOVED_TO) {
            old = self.moved_from.remove(&cookie);
            if old.is_some() { "rename" } else { "create" }
        } else if flags.contains(ReadFlags::CREATE) {
            "create"
        } else if flags.contains(ReadFlags::DELETE) {
            "remove"
        } else if flags.contains(ReadFlags::ATTRIB) {
            "chmod"
        } else {
            "write"
        };
        let known = self.changes.iter().any(|(k, p, _, _)| *k == kind && *p == path);
        if !known && self.changes.len() < KEPT {
            self.changes.push((kind, path, old, is_dir));
        }
    }

    fn flush(&mut self, watcher: &Watcher) {
        self.due = None;
        let gone = self.moved_from.drain().map(|(_, path)| ("remove", path, None, false));
        for (kind, path, old, is_dir) in self.changes.drain(..).chain(gone.collect::<Vec<_>>()) {
            if watcher.wants(&path) {
                watcher.record(kind, &path, old.as_deref(), is_dir);
            }
        }
    }
}

async fn follow(watcher: Arc<Watcher>, mut directories: Directories) {
    let mut pending = Pending::default();
    // Ends when the watcher was stopped: then only this task and nobody else holds it.
    let mut stopped = watcher.newest.subscribe();
    while Arc::strong_count(&watcher) > 1 {
        let due = pending.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        tokio::select! {
            ready = directories.fd.readable() => {
                let Ok(mut guard) = ready else { return };
                guard.clear_ready();
                drop(guard);
                while directories.read(&watcher, &mut pending).is_ok() {}
                let quiet = Instant::now() + watcher.debounce;
                if !pending.changes.is_empty() || !pending.moved_from.is_empty() {
                    pending.due.get_or_insert(quiet);
                }
            }
            () = tokio::time::sleep_until(due) => pending.flush(&watcher),
            _ = stopped.changed() => {}
        }
    }
}

#[derive(Deserialize)]
struct CreateRequest {
    path: String,
    recursive: Option<bool>,
    exclude: Option<Vec<String>>,
    debounce: Option<u64>,
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
    let recursive = request.recursive.unwrap_or(true);
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
        recursive,
        excluded: walk::path_globs(&target, &excluded).map_err(|failure| as_http(&failure))?,
        included: walk::path_globs(&target, &included).map_err(|failure| as_http(&failure))?,
        debounce,
        log: Mutex::new(Log::default()),
        newest: watch::Sender::new(0),
    });
    let failed = |error: std::io::Error| as_http(&target.failed(&error));
    let mut directories = Directories::new().map_err(failed)?;
    let shared = Arc::clone(&watcher);
    let added =
        app.pool().run(move || directories.add(&shared, &shared.root, recursive).map(|()| directories));
    let directories = added.await?.map_err(failed)?;
    tokio::spawn(follow(Arc::clone(&watcher), directories));
    Ok(watcher)
}

/// These routes have no envelope to put a failure into.
fn as_http(failure: &super::Failure) -> ApiError {
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

#[derive(Deserialize)]
struct PollRequest {
    #[serde(alias = "since")]
    cursor: Option<u64>,
    limit: Option<usize>,
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

#[derive(Deserialize)]
struct WaitRequest {
    path: String,
    timeout: Option<Seconds>,
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
    let parent = parent.unwrap_or_else(|| PathBuf::from("/")).to_string_lossy().into_owned();
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
        let hit = events.into_iter().find(|event| {
            wanted(event.kind) && (target.path.is_dir() || Path::new(&event.path) == target.path)
        });
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
