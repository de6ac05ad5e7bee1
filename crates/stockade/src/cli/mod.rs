//! What can be said on the command line.

mod doctor;
mod remote;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{self, Runtime};

use crate::health;
use crate::printable::printable_lines;

/// Sandboxes for AI agents, on this machine or on Kubernetes.
///
/// `stockade up` serves sandboxes of this machine: nothing has to be installed. `stockade serve` is the server for
/// deployments. All other commands talk to one of them, and find the one that `up` runs here by themselves.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, about, subcommand_help_heading = "Commands")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve sandboxes of this machine: makes its state and key, and says what to do with them
    Up(serve::Up),
    /// Make a sandbox, or find the one that is there
    Create(remote::Create),
    /// List the sandboxes
    #[command(visible_alias = "list")]
    Ls(remote::List),
    /// Show one sandbox, and what happened to it lately
    Get(remote::Get),
    /// Run a command in a sandbox; its output, exit status and signals pass through
    Exec(remote::Exec),
    /// Open a terminal in a sandbox
    Shell(remote::Shell),
    /// Show what the main process of a sandbox wrote
    Logs(remote::Logs),
    /// Stop the processes of a sandbox where they are; the next connection wakes them
    Pause(remote::Named),
    /// Let a paused sandbox run on
    Resume(remote::Named),
    /// End sandboxes
    #[command(visible_alias = "delete")]
    Rm(remote::Remove),
    /// End all sandboxes of this machine, and its server
    Down(serve::Down),
    /// Say what keeps sandboxes from working, or from being isolated well, and what to do about it
    Doctor(doctor::Doctor),
    /// Print the steps by which the embedded backend makes a sandbox, without making one
    Explain(doctor::Explain),
    /// Serve the API as part of a deployment. Everything else is set by environment variables
    Serve(serve::Serve),
    /// Ask a running server whether it lives; exits with 0 when it does
    Health(Health),
}

#[derive(Debug, Args)]
struct Health {
    /// The server [default: the loopback address at the port of STOCKADE_LISTEN, or 8002]
    #[arg(long)]
    url: Option<String>,
}

/// Where sandboxes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendKind {
    /// As Pods of a cluster.
    Kubernetes,
    /// On this machine.
    Embedded,
}

impl Cli {
    /// Does what was said.
    pub(crate) fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Up(arguments) => arguments.run(),
            Command::Create(arguments) => arguments.run(),
            Command::Ls(arguments) => arguments.run(),
            Command::Get(arguments) => arguments.run(),
            Command::Exec(arguments) => arguments.run(),
            Command::Shell(arguments) => arguments.run(),
            Command::Logs(arguments) => arguments.run(),
            Command::Pause(arguments) => arguments.pause(),
            Command::Resume(arguments) => arguments.resume(),
            Command::Rm(arguments) => arguments.run(),
            Command::Down(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
            Command::Explain(arguments) => arguments.run(),
            Command::Serve(arguments) => arguments.run(),
            Command::Health(arguments) => arguments.run(),
        };
        result.unwrap_or_else(|error| {
            if is_closed_pipe(&error) {
                // Whoever read our output has read enough: nothing to say, and no success either.
                return ExitCode::from(CLOSED_PIPE);
            }
            // The last words; there is nobody left to tell if they cannot be written.
            // They may repeat words of a server or of a sandbox.
            let _ = writeln!(io::stderr(), "stockade: {}", printable_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        })
    }
}

/// The exit status of what SIGPIPE ended, as shells say it: 128 and its number.
const CLOSED_PIPE: u8 = 141;

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Health {
    fn run(self) -> anyhow::Result<ExitCode> {
        let url = self.url.unwrap_or_else(|| health::default_url(std::env::var("STOCKADE_LISTEN").ok()));
        mk_runtime()?.block_on(health::check(&url))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn mk_runtime() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread().enable_all().build()
}

/// A runtime for commands that make a few calls: without threads, it starts at once.
fn mk_small_runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
