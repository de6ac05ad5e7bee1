//! The agent as a program: parses, then runs.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use crate::install::install;
use crate::lifecycle::run;
use crate::options::{Options, Parsed};

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
        Ok(Parsed::Install(directory)) => install(&directory).map_err(|error| with_source(&error)),
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

fn with_source(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
