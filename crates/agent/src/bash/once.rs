//! Running one command for the agent's own routes, outside any session.

use std::path::PathBuf;
use std::time::Duration;

use super::command::{BashCommand, BashOrder, CommandStatus};
use crate::app::App;
use crate::http::ApiError;
use crate::kills::Verdict;

/// How a command ended that was run once.
pub(crate) struct Once {
    /// `completed`, `timed_out` or `killed`.
    pub(crate) status: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit_code: Option<i32>,
    /// What is said of its end when memory was short.
    pub(crate) verdict: Option<Verdict>,
}

/// Runs `text` in bash with `stdin`, ending it and all it started after `limit`.
pub(crate) async fn run_once(
    app: &App,
    text: &str,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    stdin: Option<String>,
    limit: Duration,
) -> Result<Once, ApiError> {
    let order = BashOrder {
        id: String::new(),
        text: text.to_owned(),
        directory,
        environment,
        snapshot: None,
        hard: Some(limit),
        backpressure: false,
    };
    let surroundings = &app.bashes().surroundings;
    let started = BashCommand::start(order, surroundings).await;
    let command = started.map_err(|error| surroundings.cannot_start_bash(&error))?;
    // A program that does not read all of its input is not wrong.
    let _ = command.write(stdin.unwrap_or_default().as_bytes(), limit).await;
    command.close_input().await;
    command.ended(None).await;
    let whole = command.whole();
    command.release_output();
    let status = match whole.status {
        CommandStatus::TimedOut => "timed_out",
        CommandStatus::Killed => "killed",
        CommandStatus::Completed | CommandStatus::Running => "completed",
    };
    Ok(Once {
        status: status.to_owned(),
        stdout: whole.stdout,
        stderr: whole.stderr,
        exit_code: whole.exit_code,
        verdict: whole.verdict,
    })
}
