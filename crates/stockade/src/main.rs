//! The one binary of Stockade. It parses, then calls.

mod backend;
mod cli;
mod doctor;
mod explain;
#[cfg(test)]
mod golden;
mod health;
mod logging;
mod machine;
mod own;
mod printable;
mod remote;
mod serve;
mod settings;
mod signals;
mod state;
mod table;
mod up;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    stockade_embedded::role::run().unwrap_or_else(|| cli::Cli::parse().run())
}
