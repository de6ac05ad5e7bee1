//! The log: lines on standard error, as JSON or for people.

use std::io::{self, IsTerminal};
use std::panic;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Without the client library's own lines: what it tells of failures, our lines tell with their context.
pub(crate) const DEFAULT_FILTER: &str = "info,kube_client=off";

/// Starts logging. The filter is the argument, else `RUST_LOG`, else the default.
pub(crate) fn start(
    format: Option<LogFormat>,
    filter: Option<&str>,
    default_filter: &str,
) -> anyhow::Result<()> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = filter.or(variable.as_deref()).unwrap_or(default_filter);
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("--log-level or RUST_LOG: {filter:?} is not a filter like info or info,kube=debug")
    })?;
    let is_terminal = io::stderr().is_terminal();
    let default = if is_terminal { LogFormat::Text } else { LogFormat::Json };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format.unwrap_or(default) {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.with_ansi(is_terminal).init(),
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is a line like every other; whoever catches it says what became of the request.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let text = panic.payload_as_str().unwrap_or("without a text");
    tracing::error!(place, text = ?text, "panic");
}
