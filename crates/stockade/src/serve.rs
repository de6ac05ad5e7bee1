//! The server, from settings to the last answer.

use std::process;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use stockade_kubernetes::KubernetesBackend;
use stockade_server::ServerState;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::settings::Settings;
use crate::signals::Signals;

/// How long requests under way may take to finish after a signal. With all the rest, the process has
/// ended within 5 s.
const DRAIN: Duration = Duration::from_secs(4);
/// How long the server of the first moments may take to finish what it answers.
const HANDOVER: Duration = Duration::from_millis(200);
/// The exit code of a process that a second signal ended; 128 and SIGTERM's number, as shells say it.
const ENDED_AT_ONCE: i32 = 143;

/// Serves until a signal comes.
///
/// # Errors
/// When the address is taken, or the backend cannot be started.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    announce(&settings);
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--listen or STOCKADE_LISTEN)"))?;
    let mut registry = Registry::default();
    let (listener, meanwhile) = twice(listener).context("cannot share the listening socket")?;
    let (started, wait) = oneshot::channel::<()>();
    let wait = async move { drop(wait.await) };
    let meanwhile =
        tokio::spawn(stockade_server::serve(meanwhile, stockade_server::starting_router(), wait, HANDOVER));
    let backend = tokio::select! {
        backend = KubernetesBackend::start(settings.kubernetes, &mut registry) => backend?,
        signal = signals.next() => {
            tracing::info!(signal, "ending before the backend has started");
            return Ok(());
        }
    };
    drop(started);
    meanwhile.await.context("the server of the first moments failed")?;
    let state = ServerState::new(backend, settings.server, registry);
    tracing::info!(%address, "serving");
    let shutdown = async move {
        let signal = signals.next().await;
        tracing::info!(signal, seconds = DRAIN.as_secs(), "ending; requests under way may finish");
        tokio::spawn(async move {
            let signal = signals.next().await;
            tracing::warn!(signal, "ending at once");
            process::exit(ENDED_AT_ONCE);
        });
    };
    let drained = stockade_server::serve(listener, stockade_server::router(state), shutdown, DRAIN).await;
    tracing::info!(cut_off = drained.cut_off, "ended");
    Ok(())
}

/// The same socket twice, for two servers one after the other: what comes between them waits in its queue.
fn twice(listener: TcpListener) -> std::io::Result<(TcpListener, TcpListener)> {
    let first = listener.into_std()?;
    let second = first.try_clone()?;
    Ok((TcpListener::from_std(first)?, TcpListener::from_std(second)?))
}

/// What the settings amount to; what an operator would have to know afterwards.
fn announce(settings: &Settings) {
    let contract = &settings.kubernetes.storage.contract;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = settings.kubernetes.namespace,
        image = settings.kubernetes.image,
        service_type = settings.kubernetes.service_type.as_str(),
        node_host = settings.kubernetes.node_host,
        "stockade"
    );
    tracing::info!(%contract, reason = settings.contract_reason, "mount contract");
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}
