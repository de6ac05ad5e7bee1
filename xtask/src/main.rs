//! Developer tasks of Stockade: `cargo xtask --help`.

use clap::{Parser, Subcommand};
use xtask::{cluster, image};

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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Cluster(command) => cluster::cli::run(&command),
        Command::Image(command) => image::cli::run(&command),
    }
}
