//! Developer tasks of Stockade: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{cluster, image, progress};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Stockade")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes cluster for tests, in namespaces of its own
    Cluster(cluster::cli::Cluster),
    /// Write a test image as an OCI archive, without any registry
    Image(image::cli::Image),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Cluster(command) => cluster::cli::run(&command),
        Command::Image(command) => image::cli::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line, from what was wanted to what went wrong; no backtrace helps with a
            // missing package or a component that does not start.
            progress::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
