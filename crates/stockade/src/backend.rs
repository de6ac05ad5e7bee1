//! From settings to a backend that runs.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use stockade_core::Backend;
use stockade_embedded::facts::MachineFacts;
use stockade_embedded::{EmbeddedBackend, EmbeddedSettings};
use stockade_kubernetes::KubernetesBackend;

use crate::machine;
use crate::settings::BackendSettings;

/// What has to happen while this process has one thread.
///
/// # Errors
/// When the machine does not let an ordinary user have sandboxes; the error says what to change.
pub(crate) fn before_threads(settings: &BackendSettings) -> anyhow::Result<()> {
    match settings {
        BackendSettings::Kubernetes(_) => Ok(()),
        BackendSettings::Embedded(settings) => enter_namespaces(&settings.state_dir),
    }
}

/// Starts the backend that the settings name.
///
/// # Errors
/// When it cannot be started. No other takes its place.
pub(crate) async fn start(
    settings: BackendSettings,
    registry: &mut Registry,
) -> anyhow::Result<Arc<dyn Backend>> {
    match settings {
        BackendSettings::Kubernetes(settings) => Ok(KubernetesBackend::start(*settings, registry).await?),
        BackendSettings::Embedded(settings) => start_embedded(*settings, registry).await,
    }
}

/// An ordinary user gets a user namespace with all rights in it; that of the relay of an earlier server where there
/// is one, because sandboxes belong to it.
pub(crate) fn enter_namespaces(state_dir: &Path) -> anyhow::Result<()> {
    if machine::is_root() {
        return Ok(());
    }
    let relay = match state_dir.is_dir() {
        true => stockade_embedded::relay::find(state_dir).context("looking for an earlier relay")?,
        false => None,
    };
    stockade_embedded::launch::enter_outer_namespaces(relay)?;
    Ok(())
}

async fn start_embedded(
    settings: EmbeddedSettings,
    registry: &mut Registry,
) -> anyhow::Result<Arc<dyn Backend>> {
    let facts = MachineFacts::probe();
    Ok(EmbeddedBackend::start(settings, facts, registry).await?)
}
