//! The backend as the server sees it.

mod adopt;
mod create;
mod directories;
mod down;
mod end;
mod entry;
mod error;
mod evict;
mod explain;
mod inner;
mod log;
mod measure;
mod metrics;
mod mounts;
mod named;
mod pause;
mod places;
mod plan;
mod process;
mod relays;
mod remove;
mod request;
mod sameness;
mod standby;
mod start;
mod status;
mod tend;
mod unlimited;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use stockade_core::backend::{BackendHealth, Capabilities, Features, LogOptions, LogStream};
use stockade_core::egress::NetworkMode;
use stockade_core::sandbox::{FoundSandbox, Reconciliation, SandboxEvent};
use stockade_core::{Backend, BackendError, Sandbox, SandboxId, SandboxSpec, Status};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

pub use down::{DownError, check_down, down};
pub use error::StartError;
pub use explain::{Explained, explain};
use inner::{Inner, Parts};
use metrics::Metrics;
use relays::Relays;

use crate::cgroup::Cgroups;
use crate::facts::MachineFacts;
use crate::network::{Network, NetworkOptions};
use crate::settings::EmbeddedSettings;
use crate::state::StateDir;
use crate::state::record::Phase;
use crate::state::trash::Trash;

/// How many sandboxes there can be on one machine: each has its own users.
pub const MAX_SANDBOXES: u32 = places::SLOTS;

/// Sandboxes on this machine.
///
/// Dropping it ends its own tasks and what was prepared ahead; the sandboxes and the relay stay.
pub struct EmbeddedBackend {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

impl EmbeddedBackend {
    /// Takes the state directory, finds or starts the relay, and looks at every sandbox an earlier server left.
    ///
    /// # Errors
    /// When settings do not go together, the machine cannot isolate, or somebody else has the state directory.
    pub async fn start(
        settings: EmbeddedSettings,
        facts: MachineFacts,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, StartError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(StartError::Settings(problems));
        }
        // Before anything is made for settings that are wrong.
        let named = settings.clone();
        let problems = tokio::task::spawn_blocking(move || named::problems(&named)).await;
        if let Ok(problems) = problems
            && !problems.is_empty()
        {
            return Err(StartError::Settings(problems));
        }
        named::warn_of_ports(settings.ports);
        if !facts.can_isolate() {
            return Err(StartError::Machine("the kernel refuses what every sandbox needs".to_owned()));
        }
        let state = StateDir::open(&settings.state_dir)?;
        directories::make(&settings)?;
        let boot_id = process::boot_id()
            .map_err(|source| StartError::Kernel { what: "which start of the machine this is", source })?;
        for path in crate::facts::open_to_others(&settings) {
            tracing::warn!(path = %path.display(), "other users of this machine can enter where sandboxes write; see `stockade doctor`");
        }
        let trash = Trash::start(state.trash())?;
        let cgroups = Cgroups::open(&facts.cgroups, state.machine().name())?;
        let network = Network::start(NetworkOptions {
            machine: state.machine().name().to_owned(),
            subnet: settings.subnet,
            default_mode: settings.network,
            ready: NetworkOptions::READY,
        })
        .await?;
        let (relays, events) =
            Relays::start(state.root().to_owned(), settings.bind).await.map_err(StartError::Relay)?;
        let metrics = Metrics::new(registry);
        tracing::info!(
            state_dir = %state.root().display(), machine = state.machine().name(),
            privileged = facts.privileged, ports = %settings.ports, "embedded backend"
        );
        if let Some(note) = unlimited::note(&facts.cgroups) {
            tracing::warn!("sandboxes are {note}; `stockade doctor` says what to do");
        }
        let parts = Parts { settings, facts, state, trash, boot_id, cgroups, network, relays, metrics };
        let inner = Arc::new(Inner::new(parts));
        inner.launcher().await.map_err(StartError::Launcher)?;
        adopt::adopt_all(&inner).await?;
        let tasks = vec![
            tokio::spawn(relays::follow(Arc::clone(&inner), events)).abort_handle(),
            tokio::spawn(tend::run(Arc::clone(&inner))).abort_handle(),
            tokio::spawn(standby::run(Arc::clone(&inner))).abort_handle(),
        ];
        Ok(Arc::new(Self { inner, tasks }))
    }
}

impl Drop for EmbeddedBackend {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        standby::end(&self.inner);
    }
}

#[async_trait]
impl Backend for EmbeddedBackend {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            lark: request::LARK,
            contract: self.inner.settings.storage.contract,
            features: Features {
                env: true,
                resources: true,
                network: &[NetworkMode::Isolated, NetworkMode::Open],
            },
        }
    }

    fn health(&self) -> BackendHealth {
        let inner = &self.inner;
        let lost = inner.entries().iter().filter(|entry| entry.now().trouble.is_some()).count();
        let parts = vec![
            ("relay", inner.relays.is_down().then(|| "it has ended; another is being started".to_owned())),
            (
                "sandboxes",
                (lost > 0).then(|| format!("{lost} cannot be reached or started; see their events")),
            ),
        ];
        BackendHealth {
            ready: !inner.relays.is_down(),
            parts,
            sandboxes: inner.count(),
            proven_age: Some(Duration::ZERO),
        }
    }

    async fn create(&self, spec: &SandboxSpec, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        create::create(&self.inner, spec, deadline.into()).await
    }

    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
        let seen = self.inner.entry(id).map(|entry| entry.seen());
        Ok(seen.filter(|seen| seen.visible).map(|seen| seen.sandbox))
    }

    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError> {
        let seen = self.inner.entries().into_iter().map(|entry| entry.seen());
        Ok(seen.filter(|seen| seen.visible).map(|seen| seen.sandbox).collect())
    }

    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError> {
        remove::delete(&self.inner, id).await
    }

    /// Reads the record itself: what memory holds does not count.
    async fn reconcile(&self, id: &SandboxId) -> Result<Reconciliation, BackendError> {
        let record = self.inner.state.read_one(id).map_err(|source| {
            let message = format!("the record of sandbox '{id}' cannot be read: {}", error::chain(&source));
            BackendError::Unreachable { message, source: Some(source.into()) }
        })?;
        let found = record.map(|record| {
            let there = matches!(record.life.phase, Phase::Live | Phase::Failed);
            FoundSandbox {
                incarnation: record.incarnation,
                url: there.then(|| format!("http://{}:{}", self.inner.settings.node_host, record.port)),
                identity: Some(record.identity),
                contract: Some(record.contract),
            }
        });
        Ok(Reconciliation { backend_namespace: self.inner.state.machine().id().to_owned(), found })
    }

    async fn namespace_id(&self) -> Result<String, BackendError> {
        Ok(self.inner.state.machine().id().to_owned())
    }

    async fn wait_ready(&self, id: &SandboxId, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        let entry = self.inner.visible(id)?;
        if entry.now().on_demand {
            tokio::spawn(start::demanded(Arc::clone(&self.inner), Arc::clone(&entry)));
        }
        let mut seen = entry.subscribe();
        let settled = seen.wait_for(|seen| {
            let is_final = matches!(seen.sandbox.status, Status::Failed | Status::Succeeded);
            seen.sandbox.ready || is_final || !seen.visible
        });
        // Past the deadline it is returned as it is.
        let _ = timeout_at(deadline.into(), settled).await;
        let seen = entry.seen();
        if seen.visible { Ok(seen.sandbox) } else { Err(BackendError::NotFound { id: id.clone() }) }
    }

    async fn events(&self, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
        Ok(self.inner.visible(id)?.events())
    }

    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError> {
        self.inner.visible(id)?;
        self.inner.log(id).stream(options)
    }

    async fn pause(&self, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        pause::pause(&self.inner, id).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        pause::resume(&self.inner, id).await
    }
}
