//! What every handler can reach.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use stockade_api::sandbox::View;
use stockade_core::Backend;

use crate::auth::Access;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::origin::AllowedHosts;

/// What the server is told at start, already checked.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Who may call `/api`.
    pub access: Access,
    /// The names this server answers to, beyond those that are always known.
    pub allowed_hosts: AllowedHosts,
    /// Whether `/metrics` wants the key too.
    pub metrics_need_key: bool,
}

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct ServerState(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    settings: ServerSettings,
    limits: Limits,
    metrics: Metrics,
}

impl ServerState {
    /// The state of a server in front of this backend. The registry may hold metrics of others already.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, settings: ServerSettings, registry: Registry) -> Self {
        let metrics = Metrics::new(registry, Arc::clone(&backend));
        Self(Arc::new(Inner { backend, settings, limits: Limits::default(), metrics }))
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0.backend)
    }

    pub(crate) fn settings(&self) -> &ServerSettings {
        &self.0.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// How answers look now.
    pub(crate) fn view(&self) -> View {
        View { contract: self.0.backend.capabilities().contract, backend: self.0.backend.name() }
    }
}
