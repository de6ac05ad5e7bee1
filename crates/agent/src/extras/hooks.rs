//! Commands that run when the sandbox starts and before it ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{delete, get};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::bash::run_once;
use crate::http::{ApiError, JsonBody, QueryOf, ok};
use crate::seconds::Seconds;

const MAX_HOOKS: usize = 64;
const COMMAND_CHARACTERS: usize = 4096;
const NAME_CHARACTERS: usize = 64;
const DEFAULT_TIMEOUT: f64 = 10.0;
const DEFAULT_PRIORITY: i64 = 100;
const SHUTDOWN: &str = "SANDBOX_SHUTDOWN_HOOKS";
const SHUTDOWN_TIMEOUT: &str = "SANDBOX_SHUTDOWN_HOOKS_TIMEOUT";
/// The `source` of a hook that calls can neither replace nor remove.
const ENVIRONMENT: &str = "env";
/// How long the hooks before the first call may take together.
const START: Duration = Duration::from_secs(60);

/// When a hook runs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    Shutdown,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Hook {
    name: String,
    event: Event,
    command: String,
    /// Seconds.
    timeout: f64,
    priority: i64,
    /// `api`, or `env` for one that stays.
    #[schema(value_type = String)]
    source: &'static str,
}

pub(crate) struct Hooks {
    by_name: Mutex<BTreeMap<String, Hook>>,
}

/// Hooks that the environment asks for.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentHooks {
    /// Run one after the other before the first call is answered: the variable, and its command.
    before: Vec<(&'static str, String)>,
    after: Option<(&'static str, String)>,
    shutdown: Vec<Hook>,
}

/// One entry of `SANDBOX_SHUTDOWN_HOOKS`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Command(String),
    Full { name: Option<String>, command: String, timeout: Option<Seconds>, priority: Option<i64> },
}

impl EnvironmentHooks {
    /// Reads the variables that `variable` looks up.
    ///
    /// # Errors
    /// The variable that is wrong, its value, and what would be right.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (&'static str, String, &'static str)> {
        let named = |name: &'static str| variable(name).map(|command| (name, command));
        let before = ["RUN_HOOK_INIT", "RUN_HOOK_PRE_SERVICES"].into_iter().filter_map(named).collect();
        let mut limit = DEFAULT_TIMEOUT;
        if let Some(value) = variable(SHUTDOWN_TIMEOUT) {
            let seconds = value.trim().parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
            limit = seconds.ok_or((SHUTDOWN_TIMEOUT, value, "is not a number of seconds from 0 to 3600"))?;
        }
        let shutdown = variable(SHUTDOWN).map(|value| shutdown_hooks(value, limit)).transpose()?;
        Ok(Self { before, after: named("RUN_HOOK_POST_READY"), shutdown: shutdown.unwrap_or_default() })
    }
}

/// A JSON list of commands and objects, or one command as it is.
fn shutdown_hooks(value: String, limit: f64) -> Result<Vec<Hook>, (&'static str, String, &'static str)> {
    if !value.trim_start().starts_with('[') {
        return Ok(vec![from_environment("env-1".to_owned(), value, limit, DEFAULT_PRIORITY)]);
    }
    let listed: Vec<Listed> = serde_json::from_str(&value)
        .map_err(|_| (SHUTDOWN, value, "is not a JSON list of commands or of objects with a command"))?;
    let hooks = listed.into_iter().take(MAX_HOOKS).enumerate().map(|(place, listed)| {
        let own = format!("env-{}", place + 1);
        match listed {
            Listed::Command(command) => from_environment(own, command, limit, DEFAULT_PRIORITY),
            Listed::Full { name, command, timeout, priority } => {
                let timeout = timeout.map_or(limit, |timeout| timeout.duration().as_secs_f64());
                from_environment(name.unwrap_or(own), command, timeout, priority.unwrap_or(DEFAULT_PRIORITY))
            }
        }
    });
    Ok(hooks.collect())
}

fn from_environment(name: String, command: String, timeout: f64, priority: i64) -> Hook {
    Hook { name, event: Event::Shutdown, command, timeout, priority, source: ENVIRONMENT }
}

impl EnvironmentHooks {
    /// Whether something is to run before the first call is answered.
    pub(crate) fn come_first(&self) -> bool {
        !self.before.is_empty()
    }
}

/// Runs what is to run before the first call is answered. What fails is said and stops nothing.
pub(crate) async fn run_before(app: App, hooks: EnvironmentHooks) {
    let run = async {
        for (variable, command) in &hooks.before {
            run_one(&app, variable, command).await;
        }
    };
    if tokio::time::timeout(START, run).await.is_err() {
        say(&format!("hooks at the start took longer than {} s", START.as_secs()));
    }
}

/// Runs what is to run once calls are answered.
pub(crate) async fn run_after(app: App, hooks: EnvironmentHooks) {
    if let Some((variable, command)) = &hooks.after {
        run_one(&app, variable, command).await;
    }
}

async fn run_one(app: &App, variable: &str, command: &str) {
    let outcome = run_once(app, command, Vec::new(), app.workspace(), None, START).await;
    match outcome {
        Ok(once) if once.exit_code == Some(0) => {}
        Ok(once) => {
            let errors: String = once.stderr.chars().take(500).collect();
            say(&format!("{variable}: {}, exit code {:?}: {errors}", once.status, once.exit_code));
        }
        Err(error) => say(&format!("{variable}: {}", error.message())),
    }
}

fn say(line: &str) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "stockade-agent: {line}");
}

impl Hooks {
    pub(crate) fn new(environment: &EnvironmentHooks) -> Self {
        let by_name = environment.shutdown.iter().map(|hook| (hook.name.clone(), hook.clone())).collect();
        Self { by_name: Mutex::new(by_name) }
    }

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

#[derive(Deserialize, ToSchema)]
pub(crate) struct Filter {
    /// Only hooks of this event.
    event: Option<String>,
}

async fn list(State(app): State<App>, QueryOf(filter): QueryOf<Filter>) -> Response {
    let mut hooks = app.hooks().in_order();
    if let Some(event) = filter.event {
        hooks.retain(|hook| hook.event.name() == event);
    }
    ok("Hooks", hooks)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct RegisterRequest {
    /// It replaces one of the same name.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    /// What to run, in bash.
    #[schema(min_length = 1, max_length = 4096)]
    command: String,
    #[schema(default = "shutdown")]
    event: Option<Event>,
    /// Seconds it may take; 10 unless given.
    timeout: Option<Seconds>,
    /// Lower ones run first, equal ones together.
    #[schema(default = json!(DEFAULT_PRIORITY))]
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
    let hook = Hook {
        name: name.clone(),
        event: request.event.unwrap_or(Event::Shutdown),
        command: request.command,
        timeout: request.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.duration().as_secs_f64()),
        priority: request.priority.unwrap_or(DEFAULT_PRIORITY),
        source: "api",
    };
    let mut hooks = app.hooks().by_name.lock();
    if hooks.get(&name).is_some_and(|known| known.source == ENVIRONMENT) {
        return Err(ApiError::bad_request(format!("hook {name:?} comes from {SHUTDOWN} and stays")));
    }
    if hooks.len() >= MAX_HOOKS && !hooks.contains_key(&name) {
        return Err(ApiError::bad_request(format!("there are {MAX_HOOKS} hooks already")));
    }
    hooks.insert(name, hook.clone());
    Ok(ok("Hook registered", hook))
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let mut hooks = app.hooks().by_name.lock();
    let hook = hooks.get(&name).ok_or_else(|| ApiError::not_found(format!("there is no hook {name:?}")))?;
    if hook.source == ENVIRONMENT {
        return Err(ApiError::bad_request(format!("hook {name:?} comes from {SHUTDOWN} and stays")));
    }
    hooks.remove(&name);
    Ok(ok("Hook removed", ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<EnvironmentHooks, (&'static str, String, &'static str)> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        EnvironmentHooks::read(find)
    }

    #[test]
    fn hooks_are_read_from_the_environment() {
        let hooks = read(&[
            ("RUN_HOOK_PRE_SERVICES", "two"),
            ("RUN_HOOK_INIT", "one"),
            (SHUTDOWN, r#"["a", {"name": "b", "command": "c", "timeout": 3, "priority": 1}]"#),
            (SHUTDOWN_TIMEOUT, "7"),
        ]);
        let hooks = hooks.unwrap();
        assert_eq!(hooks.before.iter().map(|hook| hook.1.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let told: Vec<_> =
            hooks.shutdown.iter().map(|hook| (hook.name.as_str(), hook.timeout, hook.priority)).collect();
        assert_eq!(told, [("env-1", 7.0, 100), ("b", 3.0, 1)]);
        assert_eq!(read(&[(SHUTDOWN, "sync; true")]).unwrap().shutdown[0].command, "sync; true");
    }

    #[test]
    fn wrong_hooks_stop_the_start() {
        assert_eq!(read(&[(SHUTDOWN, "[1]")]).unwrap_err().0, SHUTDOWN);
        assert_eq!(read(&[(SHUTDOWN_TIMEOUT, "soon")]).unwrap_err().0, SHUTDOWN_TIMEOUT);
    }
}
