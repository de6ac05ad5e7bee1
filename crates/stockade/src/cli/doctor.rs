//! `doctor` and `explain`: what would happen, without doing it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::serve::absolute;
use super::{BackendKind, mk_runtime};
use crate::settings::{DEFAULT_KUBECONFIG, Overrides, Settings, Start};
use crate::{doctor, explain, machine};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// What to look at [default: kubernetes where its variables or a kubeconfig are, else embedded; variable:
    /// STOCKADE_BACKEND]
    #[arg(long)]
    backend: Option<BackendKind>,
    /// The state directory of the embedded backend [default: /var/lib/stockade for root, else
    /// ~/.local/state/stockade; variable: STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let is_said = self.backend.is_some() || machine::variable("STOCKADE_BACKEND").is_some();
        let backend = if is_said { self.backend } else { Some(likely_backend()) };
        // The embedded backend is looked at as `up` would start it: with a key of its own.
        let start = if backend == Some(BackendKind::Embedded) { Start::Up } else { Start::Serve };
        let state_dir = absolute(self.state_dir)?;
        let overrides = Overrides { start, backend, state_dir, ..Overrides::default() };
        let settings = Settings::load(&machine::surroundings(), overrides);
        let findings = mk_runtime()?.block_on(doctor::examine(settings));
        doctor::print(&mut io::stdout().lock(), &findings, self.json)?;
        Ok(doctor::exit_code(&findings))
    }
}

/// What somebody who names no backend most likely has. This is about advice alone: servers never guess.
fn likely_backend() -> BackendKind {
    const SIGNS: [&str; 4] =
        ["KUBECONFIG_PATH", "K8S_API_SERVER", "K8S_NAMESPACE", "KUBERNETES_SERVICE_HOST"];
    let is_set = |name: &&str| machine::variable(name).is_some_and(|value| !value.is_empty());
    if SIGNS.iter().any(is_set) || Path::new(DEFAULT_KUBECONFIG).exists() {
        BackendKind::Kubernetes
    } else {
        BackendKind::Embedded
    }
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A file with the body of a create request, like {"sandbox_id": "demo"}, or `-` for standard input
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// The state directory of the embedded backend [default: /var/lib/stockade for root, else
    /// ~/.local/state/stockade; variable: STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print the steps as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let overrides = Overrides {
            start: Start::Up,
            backend: Some(BackendKind::Embedded),
            state_dir: absolute(self.state_dir)?,
            ..Overrides::default()
        };
        let settings = Settings::load(&machine::surroundings(), overrides)?;
        explain::run(&settings, &self.spec, self.json)
    }
}
