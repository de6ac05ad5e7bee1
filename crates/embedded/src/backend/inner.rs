//! What all operations of the backend share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use stockade_core::layout::UserData;
use stockade_core::{BackendError, SandboxId};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::entry::{Entry, Turn};
use super::error::StartFailure;
use super::log::Log;
use super::metrics::Metrics;
use super::places::Places;
use super::relays::Relays;
use super::standby::Standbys;
use crate::cgroup::{CgroupError, Cgroups, SandboxCgroup};
use crate::facts::MachineFacts;
use crate::launch::{LaunchError, LaunchFds, LaunchSpec, Launched, Launcher, LauncherOptions};
use crate::network::Network;
use crate::rootfs::HostSystem;
use crate::settings::EmbeddedSettings;
use crate::state::StateDir;
use crate::state::record::Record;
use crate::state::trash::Trash;

/// How many sandboxes may be started at once. Beyond a few for each processor they only wait for one another.
const STARTS: usize = 32;

pub(crate) struct Inner {
    pub(crate) settings: EmbeddedSettings,
    pub(crate) facts: MachineFacts,
    pub(crate) state: StateDir,
    pub(crate) trash: Trash,
    pub(crate) boot_id: String,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) network: Network,
    pub(crate) relays: Relays,
    pub(crate) metrics: Metrics,
    pub(crate) places: Mutex<Places>,
    pub(crate) standbys: Standbys,
    sandboxes: RwLock<BTreeMap<SandboxId, Arc<Entry>>>,
    starts: Semaphore,
    launcher: tokio::sync::Mutex<Option<Arc<Launcher>>>,
}

/// Everything the backend needs that is found or made at its start.
pub(crate) struct Parts {
    pub(crate) settings: EmbeddedSettings,
    pub(crate) facts: MachineFacts,
    pub(crate) state: StateDir,
    pub(crate) trash: Trash,
    pub(crate) boot_id: String,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Network,
    pub(crate) relays: Relays,
    pub(crate) metrics: Metrics,
}

impl Inner {
    pub(crate) fn new(parts: Parts) -> Self {
        let places = Places::new(parts.settings.ports, parts.state.machine().id());
        Self {
            settings: parts.settings,
            facts: parts.facts,
            state: parts.state,
            trash: parts.trash,
            boot_id: parts.boot_id,
            cgroups: Arc::new(parts.cgroups),
            network: parts.network,
            relays: parts.relays,
            metrics: parts.metrics,
            places: Mutex::new(places),
            standbys: Standbys::default(),
            sandboxes: RwLock::default(),
            starts: Semaphore::new(STARTS),
            launcher: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn entry(&self, id: &SandboxId) -> Option<Arc<Entry>> {
        self.sandboxes.read().get(id).cloned()
    }

    /// The sandbox, as long as callers may know of it.
    pub(crate) fn visible(&self, id: &SandboxId) -> Result<Arc<Entry>, BackendError> {
        let entry = self.entry(id).filter(|entry| entry.seen().visible);
        entry.ok_or_else(|| BackendError::NotFound { id: id.clone() })
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.sandboxes.read().values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.sandboxes.read().len()
    }

    /// Puts a sandbox in under its id, unless there is one.
    pub(crate) fn insert(
        &self,
        id: &SandboxId,
        make: impl FnOnce() -> Result<(Arc<Entry>, Turn), BackendError>,
    ) -> Result<Slot, BackendError> {
        let mut sandboxes = self.sandboxes.write();
        if let Some(entry) = sandboxes.get(id) {
            return Ok(Slot::Present(Arc::clone(entry)));
        }
        let most = usize::try_from(self.settings.max_sandboxes).unwrap_or(usize::MAX);
        if sandboxes.len() >= most {
            return Err(BackendError::QuotaExceeded { message: self.settings.full() });
        }
        let (entry, turn) = make()?;
        sandboxes.insert(id.clone(), Arc::clone(&entry));
        Ok(Slot::New(entry, turn))
    }

    /// Puts a sandbox in that was found at the start.
    pub(crate) fn found(&self, record: Record) -> Arc<Entry> {
        let entry = Entry::new(record, &self.settings.node_host);
        self.places.lock().claim(entry.place());
        self.sandboxes.write().insert(entry.id.clone(), Arc::clone(&entry));
        entry
    }

    /// Forgets a sandbox of which nothing is left.
    pub(crate) fn forget(&self, entry: &Entry) {
        self.places.lock().give_back(entry.place());
        self.sandboxes.write().remove(&entry.id);
        entry.set_gone();
    }

    /// Changes a record, in its file first.
    pub(crate) fn write(
        &self,
        entry: &Entry,
        turn: &Turn,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), BackendError> {
        entry.write(turn, &self.state, &self.settings.node_host, change)
    }

    /// The same, and the file says already that callers were told of it.
    pub(crate) fn write_ahead(
        &self,
        entry: &Entry,
        turn: &Turn,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), BackendError> {
        entry.write_ahead(turn, &self.state, &self.settings.node_host, change)
    }

    pub(crate) fn know(&self, entry: &Entry, change: impl FnOnce(&mut super::status::Now)) {
        entry.know(&self.settings.node_host, change);
    }

    pub(crate) fn log(&self, id: &SandboxId) -> Log {
        Log::new(self.state.sandbox(id), self.settings.log_bytes)
    }

    /// A turn to start processes.
    pub(crate) async fn turn_to_start(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, BackendError> {
        let turn = tokio::time::timeout_at(deadline, self.starts.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(BackendError::Overloaded {
            what: "too many sandboxes are being started",
            retry_after: Duration::from_secs(2),
        })
    }

    /// Has the launcher start a sandbox; a new launcher when the one there was has ended.
    pub(crate) async fn launch(
        &self,
        spec: &LaunchSpec,
        fds: impl Fn() -> Result<LaunchFds, StartFailure>,
    ) -> Result<Launched, StartFailure> {
        let launcher = self.launcher().await.map_err(StartFailure::Launch)?;
        match launcher.launch(spec, fds()?).await {
            Err(error) if is_gone(&error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the launcher has ended; starting another"
                );
                self.replace_launcher(&launcher).await;
                let launcher = self.launcher().await.map_err(StartFailure::Launch)?;
                launcher.launch(spec, fds()?).await.map_err(StartFailure::Launch)
            }
            result => result.map_err(StartFailure::Launch),
        }
    }

    /// The launcher there is, or a new one.
    pub(crate) async fn launcher(&self) -> Result<Arc<Launcher>, LaunchError> {
        let mut slot = self.launcher.lock().await;
        if let Some(launcher) = &*slot {
            return Ok(Arc::clone(launcher));
        }
        let options = self.launcher_options();
        // It looks at the machine's directories before it says that it is there.
        let started = tokio::task::spawn_blocking(move || Launcher::start(options)).await;
        let launcher = Arc::new(started.map_err(|_| LaunchError::Ended)??);
        *slot = Some(Arc::clone(&launcher));
        Ok(launcher)
    }

    fn launcher_options(&self) -> LauncherOptions {
        let storage = &self.settings.storage;
        let mut hidden = vec![self.state.root().to_owned(), PathBuf::from(storage.base.as_str())];
        hidden.extend(storage.extra_mount_base.as_ref().map(|base| PathBuf::from(base.as_str())));
        if let UserData::Threads(threads) = &storage.user_data {
            hidden.push(PathBuf::from(threads.as_str()));
        }
        LauncherOptions {
            facts: self.facts.clone(),
            system: HostSystem::probe(),
            stage: self.state.stage(),
            hidden,
            agent: self.settings.agent.clone(),
        }
    }

    pub(crate) async fn replace_launcher(&self, ended: &Arc<Launcher>) {
        let mut slot = self.launcher.lock().await;
        if slot.as_ref().is_some_and(|launcher| Arc::ptr_eq(launcher, ended)) {
            *slot = None;
        }
    }

    /// Runs what waits for the kernel off the threads that serve.
    pub(crate) async fn cgroup<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cgroups) -> Result<T, CgroupError> + Send + 'static,
    ) -> Result<T, StartFailure> {
        let cgroups = Arc::clone(&self.cgroups);
        let result = tokio::task::spawn_blocking(move || work(&cgroups)).await;
        result.map_err(|_| StartFailure::Worker)?.map_err(StartFailure::Cgroup)
    }

    /// The same for one sandbox's.
    pub(crate) async fn in_cgroup<T: Send + 'static>(
        &self,
        cgroup: &Arc<SandboxCgroup>,
        work: impl FnOnce(&SandboxCgroup) -> Result<T, CgroupError> + Send + 'static,
    ) -> Result<T, StartFailure> {
        let cgroup = Arc::clone(cgroup);
        let result = tokio::task::spawn_blocking(move || work(&cgroup)).await;
        result.map_err(|_| StartFailure::Worker)?.map_err(StartFailure::Cgroup)
    }
}

/// What is under an id.
pub(crate) enum Slot {
    /// One that was there.
    Present(Arc<Entry>),
    /// One that was just put in, and the turn to make it.
    New(Arc<Entry>, Turn),
}

/// The launcher itself is gone; what it was asked for may not have happened.
pub(crate) fn is_gone(error: &LaunchError) -> bool {
    matches!(error, LaunchError::Ended)
}
