//! Developer tasks of Stockade: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, cluster, dist, image, openapi, progress, test, tidy};

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
    /// Run all tests
    Test(test::Test),
    /// Measure the delivered program
    Bench(bench::Bench),
    /// Write the description of the API to crates/server/openapi.json
    Openapi,
    /// Build the static programs that are delivered into target/dist
    Dist,
    /// Look at what no compiler looks at: files, links, dependencies
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Cluster(command) => cluster::cli::run(&command),
        Command::Image(command) => image::cli::run(&command),
        Command::Test(command) => test::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Openapi => openapi::run(),
        Command::Dist => dist::run(),
        Command::Tidy => tidy::run(),
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
