//! What can be said on the command line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{self, Runtime};

use crate::logging::LogFormat;
use crate::settings::{Overrides, Settings};
use crate::{doctor, health, logging, serve};

/// Sandboxes for AI agents: a drop-in replacement of DeerFlow's provisioner.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the provisioner's API. Everything else is set by environment variables
    Serve(Serve),
    /// Ask a running server whether it lives; exits with 0 when it does
    Health(Health),
    /// Look for what would keep sandboxes from working, and say what to do about it
    Doctor(Doctor),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where the API listens [default: 0.0.0.0:8002; variable: STOCKADE_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where sandboxes run [default: kubernetes; variable: STOCKADE_BACKEND]
    #[arg(long)]
    backend: Option<BackendKind>,
    /// How log lines look [default: text on a terminal, else json]
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// What is logged: a level, or targets with levels like `info,kube=debug` [default: info; variable: RUST_LOG]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
struct Health {
    /// The server [default: the loopback address at the port of STOCKADE_LISTEN, or 8002]
    #[arg(long)]
    url: Option<String>,
}

#[derive(Debug, Args)]
struct Doctor {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Where sandboxes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendKind {
    /// As Pods of a cluster.
    Kubernetes,
    /// On this machine.
    Embedded,
}

/// How long the runtime may take to end after everything else has. What still runs then is work that
/// cannot be stopped half-way and is repeatable.
const RUNTIME_END: Duration = Duration::from_millis(200);

impl Cli {
    /// Does what was said.
    pub(crate) fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(arguments) => arguments.run(),
            Command::Health(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
        };
        result.unwrap_or_else(|error| {
            // The last words; there is nobody left to tell if they cannot be written.
            let _ = writeln!(io::stderr(), "stockade: {error:#}");
            ExitCode::FAILURE
        })
    }
}

impl Serve {
    fn run(self) -> anyhow::Result<ExitCode> {
        logging::start(self.log_format, self.log_level.as_deref())?;
        let overrides = Overrides { listen: self.listen, backend: self.backend };
        let settings = Settings::load(&|name| std::env::var_os(name), overrides)?;
        let runtime = mk_runtime()?;
        let result = runtime.block_on(serve::run(settings));
        runtime.shutdown_timeout(RUNTIME_END);
        result.map(|()| ExitCode::SUCCESS)
    }
}

impl Health {
    fn run(self) -> anyhow::Result<ExitCode> {
        let url = self.url.unwrap_or_else(|| health::default_url(std::env::var("STOCKADE_LISTEN").ok()));
        mk_runtime()?.block_on(health::check(&url))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Doctor {
    fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = mk_runtime()?;
        let settings = Settings::load(&|name| std::env::var_os(name), Overrides::default());
        let findings = runtime.block_on(doctor::examine(settings));
        doctor::print(&mut io::stdout().lock(), &findings, self.json)?;
        Ok(doctor::exit_code(&findings))
    }
}

fn mk_runtime() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread().enable_all().build()
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
