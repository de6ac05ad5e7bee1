//! The server, from settings to the last answer.

use std::io;
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade_core::Backend;
use stockade_server::{ServerState, Starting};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time;

use crate::settings::{BackendSettings, Settings};
use crate::signals::Signals;
use crate::state::StateDir;
use crate::up::{Announcement, Welcome, port_holder};
use crate::{backend, health};

/// How long requests under way may take to finish after a signal. With all the rest, the process has
/// ended within 5 s.
const DRAIN: Duration = Duration::from_secs(4);
/// How long what is being answered may take when there is nothing to serve after all.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// The exit code of a process that a second signal ended; 128 and SIGTERM's number, as shells say it.
const ENDED_AT_ONCE: i32 = 143;

/// Serves until a signal comes. `announcement` is what `up` says.
///
/// # Errors
/// When the address is taken, or the backend cannot be started.
pub(crate) async fn run(settings: Settings, announcement: Option<Announcement>) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    raise_descriptors();
    announce(&settings, announcement.as_ref().is_some_and(|announcement| announcement.for_people));
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr().context("cannot see where the server listens")?;
    let url = health::reachable(address);
    let welcome = Welcome::of(&settings);
    let recorded = Recorded::of(settings.state_dir.map(StateDir::at), &url);
    let mut registry = Registry::default();
    let starting = Starting::default();
    let (end, ended) = oneshot::channel::<()>();
    let ended = async move { drop(ended.await) };
    let mut serving = tokio::spawn(stockade_server::serve(listener, starting.router(), ended, DRAIN));
    let backend = tokio::select! {
        backend = backend::start(settings.backend, &mut registry) => backend,
        signal = signals.next() => {
            tracing::info!(signal, "ending before the backend has started");
            return Ok(());
        }
    };
    let backend = match backend {
        Ok(backend) => backend,
        Err(error) => {
            drop(end);
            // What is left then is cut off by the end of the process.
            let _ = time::timeout(LAST_ANSWERS, &mut serving).await;
            return Err(error);
        }
    };
    // Whatever another server wrote while this one was not sure of its state directory.
    recorded.write(&url);
    let outlives_us = backend.name() == "embedded";
    let backend: Arc<dyn Backend> = match &announcement {
        Some(announcement) => {
            announcement.welcome(&welcome, &url).context("cannot print")?;
            announcement.narrated(backend)
        }
        None => backend,
    };
    let state = ServerState::new(backend, settings.server, registry);
    starting.started(stockade_server::router(state));
    tracing::info!(%address, "serving");
    let signal = signals.next().await;
    tracing::info!(signal, seconds = DRAIN.as_secs(), "ending; requests under way may finish");
    tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::warn!(signal, "ending at once");
        process::exit(ENDED_AT_ONCE);
    });
    drop(end);
    let drained = serving.await.context("the server failed")?;
    tracing::info!(cut_off = drained.cut_off, "ended");
    drop(recorded);
    if let Some(announcement) = announcement.filter(|_| outlives_us) {
        announcement.farewell();
    }
    Ok(())
}

/// Where this server listens, written down in its state directory until it ends: commands without `--url` find it by
/// that, also those that are given while it starts.
struct Recorded(Option<StateDir>);

impl Recorded {
    /// Writes it down, unless a server runs there already: that one has the directory.
    fn of(state_dir: Option<StateDir>, url: &str) -> Self {
        let recorded = Self(state_dir);
        if recorded.0.as_ref().is_some_and(|dir| dir.server().is_none()) {
            recorded.write(url);
        }
        recorded
    }

    fn write(&self, url: &str) {
        let Some(dir) = &self.0 else { return };
        // Nothing else needs it, and a full disk is no reason to stop.
        if let Err(error) = dir.record_server(url) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "where this server listens cannot be written down; use --url with commands"
            );
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            dir.forget_server();
        }
    }
}

/// Takes as many descriptors as this process may have: the usual 1,024 are a few hundred sandboxes or callers. Whoever
/// waits for descriptors with `select`, which knows no more of them, is not in this program.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // The limit that is there serves too, and running into it is said.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let holder = (error.kind() == io::ErrorKind::AddrInUse)
            .then(|| port_holder::describe(address))
            .flatten()
            .map(|holder| format!(": the port is held by {holder}"));
        let text =
            format!("cannot listen on {address} (--listen or STOCKADE_LISTEN){}", holder.unwrap_or_default());
        anyhow::Error::new(error).context(text)
    })
}

/// What the settings amount to; what an operator would have to know afterwards. `warned` are those who are told
/// of the warnings in another way.
fn announce(settings: &Settings, warned: bool) {
    let version = env!("CARGO_PKG_VERSION");
    let contract = match &settings.backend {
        BackendSettings::Kubernetes(kubernetes) => {
            tracing::info!(
                version,
                namespace = kubernetes.namespace,
                image = kubernetes.image,
                service_type = kubernetes.service_type.as_str(),
                node_host = kubernetes.node_host,
                "stockade"
            );
            kubernetes.storage.contract
        }
        BackendSettings::Embedded(embedded) => {
            tracing::info!(
                version,
                state_dir = %embedded.state_dir.display(),
                bind = %embedded.bind,
                ports = %embedded.ports,
                node_host = embedded.node_host,
                "stockade"
            );
            embedded.storage.contract
        }
    };
    tracing::info!(%contract, reason = settings.contract_reason, "mount contract");
    for warning in settings.warnings.iter().filter(|_| !warned) {
        tracing::warn!("{warning}");
    }
}
