//! Commands to run before the sandbox ends.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{delete, get};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::bash::run_once;
use crate::http::{ApiError, JsonBody, ok};
use crate::seconds::Seconds;

const MAX_HOOKS: usize = 64;
const COMMAND_CHARACTERS: usize = 4096;
const NAME_CHARACTERS: usize = 64;
const DEFAULT_TIMEOUT: f64 = 10.0;
const DEFAULT_PRIORITY: i64 = 100;

#[derive(Debug, Clone, Serialize)]
struct Hook {
    name: String,
    event: &'static str,
    command: String,
    /// Seconds.
    timeout: f64,
    priority: i64,
    source: &'static str,
}

#[derive(Default)]
pub(crate) struct Hooks {
    by_name: Mutex<BTreeMap<String, Hook>>,
}

impl Hooks {
    fn in_order(&self) -> Vec<Hook> {
        let mut hooks: Vec<_> = self.by_name.lock().values().cloned().collect();
        hooks.sort_by_key(|hook| hook.priority);
        hooks
    }
}

/// Runs the hooks, lower priorities first and equal ones together, within `grace`.
pub(crate) async fn run_all(app: &App, grace: Duration) {
    let hooks = app.hooks().in_order();
    let run = async {
        for group in hooks.chunk_by(|a, b| a.priority == b.priority) {
            futures::future::join_all(group.iter().map(|hook| async {
                let limit = Duration::try_from_secs_f64(hook.timeout).unwrap_or(grace).min(grace);
                // A hook that fails is the user's; the sandbox ends all the same.
                let _ = run_once(app, &hook.command, Vec::new(), app.workspace(), None, limit).await;
            }))
            .await;
        }
    };
    let _ = tokio::time::timeout(grace, run).await;
}

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/sandbox/hooks", get(list).post(register))
        .route("/v1/sandbox/hooks/{name}", delete(remove))
}

#[derive(Deserialize)]
struct Filter {
    event: Option<String>,
}

async fn list(State(app): State<App>, Query(filter): Query<Filter>) -> Response {
    let mut hooks = app.hooks().in_order();
    if let Some(event) = filter.event {
        hooks.retain(|hook| hook.event == event);
    }
    ok("Hooks", hooks)
}

#[derive(Deserialize)]
struct RegisterRequest {
    name: String,
    command: String,
    event: Option<String>,
    timeout: Option<Seconds>,
    priority: Option<i64>,
}

async fn register(
    State(app): State<App>,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<Response, ApiError> {
    let name = request.name;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_CHARACTERS || !name.chars().all(good) {
        return Err(ApiError::invalid("name", format!("{name:?} is not 1 to 64 letters, digits, _ or -")));
    }
    if request.command.is_empty() || request.command.chars().count() > COMMAND_CHARACTERS {
        return Err(ApiError::invalid(
            "command",
            format!("a command has 1 to {COMMAND_CHARACTERS} characters"),
        ));
    }
    if let Some(event) = request.event.filter(|event| event != "shutdown") {
        return Err(ApiError::invalid("event", format!("event {event:?} is not shutdown")));
    }
    let hook = Hook {
        name: name.clone(),
        event: "shutdown",
        command: request.command,
        timeout: request.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.duration().as_secs_f64()),
        priority: request.priority.unwrap_or(DEFAULT_PRIORITY),
        source: "api",
    };
    let mut hooks = app.hooks().by_name.lock();
    if hooks.len() >= MAX_HOOKS && !hooks.contains_key(&name) {
        return Err(ApiError::bad_request(format!("there are {MAX_HOOKS} hooks already")));
    }
    hooks.insert(name, hook.clone());
    Ok(ok("Hook registered", hook))
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Response, ApiError> {
    match app.hooks().by_name.lock().remove(&name) {
        Some(_) => Ok(ok("Hook removed", ())),
        None => Err(ApiError::not_found(format!("there is no hook {name:?}"))),
    }
}
