//! The agent as a program: parses, then runs.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use crate::install::install;
use crate::lifecycle::run;
use crate::options::{Options, Parsed, SetUp};
use crate::user_data;

/// Does what the command line says. Call it before any thread is started.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args().skip(1))
}

/// Does what these arguments say. Call it before any thread is started.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let parsed = Options::parse(arguments, |name| std::env::var(name).ok());
    let result = match parsed {
        Ok(Parsed::Run(options)) => run(&options).map_err(|error| error.to_string()),
        Ok(Parsed::SetUp(wanted)) => set_up(&wanted),
        Ok(Parsed::Print(text)) => {
            std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to tell if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "stockade-agent: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What an init container does.
fn set_up(wanted: &SetUp) -> Result<(), String> {
    if let Some(directory) = &wanted.user_data
        && let Err(error) = user_data::open_to_all(directory)
    {
        // No reason for a sandbox not to start: it may be writable all the same, and reads go on anyway.
        let told =
            writeln!(std::io::stderr(), "stockade-agent: {} stays as it is: {error}", directory.display());
        drop(told);
    }
    match &wanted.install {
        Some(directory) => install(directory).map_err(|error| with_source(&error)),
        None => Ok(()),
    }
}

fn with_source(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
