//! What the backend counts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::call_error::CallError;
use crate::first_answer;

/// Cheap to clone: all clones count into the same place.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    api_calls: Family<ApiCall, Histogram, fn() -> Histogram>,
    watch_restarts: Family<Watched, Counter>,
    direct_reads: Counter,
    repairs: Counter,
    memory_kills: Counter,
    create_waits: Family<Ended, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiCall {
    verb: &'static str,
    resource: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// 1 ms to 4 s.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 13))
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            api_calls: Family::new_with_constructor(latency),
            watch_restarts: Family::default(),
            direct_reads: Counter::default(),
            repairs: Counter::default(),
            memory_kills: Counter::default(),
            create_waits: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("stockade_kubernetes");
        registry.register(
            "api_call_seconds",
            "Calls to the Kubernetes API server by outcome",
            inner.api_calls.clone(),
        );
        registry.register(
            "watch_restarts",
            "Watches that broke and were started anew",
            inner.watch_restarts.clone(),
        );
        registry.register(
            "direct_reads",
            "Reads that went to the API server: an absence to confirm, the reconciliation endpoint, events, or an index \
             that is not proven fresh",
            inner.direct_reads.clone(),
        );
        registry.register("repairs", "Half-made sandboxes completed or removed", inner.repairs.clone());
        registry.register(
            "memory_kills",
            "Containers of sandboxes that were killed for memory while this server watched",
            inner.memory_kills.clone(),
        );
        registry.register(
            "create_waits",
            "Answers of creates that waited for the sandbox, by how that ended (SANDBOX_CREATE_WAIT)",
            inner.create_waits.clone(),
        );
        Self(Arc::new(inner))
    }

    pub(crate) fn api_call(
        &self,
        verb: &'static str,
        resource: &'static str,
        error: Option<&CallError>,
        took: Duration,
    ) {
        let outcome = match error {
            None => "ok",
            Some(CallError::NotFound { .. }) => "not_found",
            Some(CallError::AlreadyExists) => "already_exists",
            Some(CallError::Conflict(_)) => "conflict",
            Some(CallError::Expired) => "expired",
            Some(CallError::Unauthorized(_)) => "unauthorized",
            Some(CallError::Forbidden(_)) => "forbidden",
            Some(CallError::Denied(_)) => "denied",
            Some(CallError::Quota(_)) => "quota",
            Some(CallError::Invalid(_)) => "invalid",
            Some(CallError::Throttled(_)) => "throttled",
            Some(CallError::Server { .. }) => "server_error",
            Some(CallError::TimedOut(_)) => "timed_out",
            Some(CallError::Transport(_)) => "unreachable",
        };
        let labels = ApiCall { verb, resource, outcome };
        self.0.api_calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn watch_restarted(&self, resource: &'static str) {
        self.0.watch_restarts.get_or_create(&Watched { resource }).inc();
    }

    pub(crate) fn direct_read(&self) {
        self.0.direct_reads.inc();
    }

    /// The counter of containers that were killed for memory.
    pub(crate) fn memory_kills(&self) -> Counter {
        self.0.memory_kills.clone()
    }

    pub(crate) fn create_waited(&self, outcome: first_answer::Outcome) {
        self.0.create_waits.get_or_create(&Ended { outcome: outcome.name() }).inc();
    }

    pub(crate) fn repaired(&self) {
        self.0.repairs.inc();
    }
}
