//! `stockade-agent`: parses, then calls.

use std::io::Write;
use std::process::ExitCode;

use stockade_agent::{Options, Parsed, run};

fn main() -> ExitCode {
    let parsed = Options::parse(std::env::args().skip(1), |name| std::env::var(name).ok());
    let result = match parsed {
        Ok(Parsed::Run(options)) => run(&options).map_err(|error| error.to_string()),
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
