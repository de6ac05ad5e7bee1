//! The one binary of Stockade. It parses, then calls.

mod cli;
mod doctor;
#[cfg(test)]
mod golden;
mod health;
mod logging;
mod serve;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
