//! `up`, `serve` and `down`: servers, and their end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{BackendKind, mk_runtime};
use crate::logging::{self, LogFormat};
use crate::settings::{Overrides, Settings, Start, state_dir};
use crate::up::{self, Announcement};
use crate::{backend, machine, serve};

/// How long the runtime may take to end after everything else has. What still runs then is work that
/// cannot be stopped half-way and is repeatable.
const RUNTIME_END: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where the API listens [default: 0.0.0.0:8002; variable: STOCKADE_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where sandboxes run [default: kubernetes; variable: STOCKADE_BACKEND]
    #[arg(long)]
    backend: Option<BackendKind>,
    /// Where the embedded backend keeps its state [default: /var/lib/stockade for root, else
    /// ~/.local/state/stockade; variable: STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Where the API listens [default: 127.0.0.1:8002; variable: STOCKADE_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where state, key and files are kept [default: /var/lib/stockade for root, else
    /// ~/.local/state/stockade; variable: STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where sandboxes run [default: embedded; variable: STOCKADE_BACKEND]
    #[arg(long)]
    backend: Option<BackendKind>,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Args)]
struct Log {
    /// How log lines look [default: text on a terminal, else json]
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// What is logged: a level, or targets with levels like `info,kube=debug` [default: info; of `up` on a
    /// terminal: warn; variable: RUST_LOG]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Down {
    /// Whose sandboxes [default: /var/lib/stockade for root, else ~/.local/state/stockade; variable:
    /// STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Remove the state directory too, with the key and, unless DEER_FLOW_HOST_BASE_DIR was set, the files of
    /// all threads
    #[arg(long)]
    purge: bool,
    /// Do not ask before something is removed; needed with --purge where nobody can be asked
    #[arg(long, short)]
    yes: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        logging::start(self.log.log_format, self.log.log_level.as_deref(), logging::DEFAULT_FILTER)?;
        let overrides = Overrides {
            start: Start::Serve,
            listen: self.listen,
            backend: self.backend,
            state_dir: absolute(self.state_dir)?,
        };
        let settings = Settings::load(&machine::surroundings(), overrides)?;
        run(settings, None)
    }
}

impl Up {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let for_people = up::is_for_people();
        let filter = if for_people { up::QUIET_FILTER } else { logging::DEFAULT_FILTER };
        logging::start(self.log.log_format, self.log.log_level.as_deref(), filter)?;
        let overrides = Overrides {
            start: Start::Up,
            listen: self.listen,
            backend: self.backend,
            state_dir: absolute(self.state_dir)?,
        };
        let mut settings = Settings::load(&machine::surroundings(), overrides)?;
        let key_file = up::prepare(&mut settings)?;
        let announcement = up::announcement(&settings, key_file, for_people);
        run(settings, Some(announcement))
    }
}

/// Serves. Until the runtime is made there is no other thread: what an ordinary user's sandboxes need of this
/// process can only be done by a process of one thread.
fn run(settings: Settings, announcement: Option<Announcement>) -> anyhow::Result<ExitCode> {
    backend::before_threads(&settings.backend)?;
    let runtime = mk_runtime()?;
    let result = runtime.block_on(serve::run(settings, announcement));
    runtime.shutdown_timeout(RUNTIME_END);
    result.map(|()| ExitCode::SUCCESS)
}

impl Down {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let given = absolute(self.state_dir)?;
        let dir = state_dir(given, &machine::variable, machine::is_root()).map_err(anyhow::Error::msg)?;
        up::down::run(&dir, self.purge, self.yes)
    }
}

/// A directory from the command line: relative ones are the caller's.
pub(super) fn absolute(path: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).with_context(|| format!("{} is no directory to use", path.display()))
    };
    path.map(absolute).transpose()
}
