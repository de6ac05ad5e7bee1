//! What the backend counts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Cheap to clone: all clones count into the same place.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    creates: Family<Outcome, Histogram, fn() -> Histogram>,
    restarts: Counter,
    out_of_memory: Counter,
    evicted: Counter,
    swept: Counter,
    relay_restarts: Counter,
    disk_used: Gauge,
    standby: Gauge,
    standby_taken: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// 1 ms to 8 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 14))
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            creates: Family::new_with_constructor(durations),
            restarts: Counter::default(),
            out_of_memory: Counter::default(),
            evicted: Counter::default(),
            swept: Counter::default(),
            relay_restarts: Counter::default(),
            disk_used: Gauge::default(),
            standby: Gauge::default(),
            standby_taken: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("stockade_embedded");
        registry.register("create_seconds", "Creates of new sandboxes by outcome", inner.creates.clone());
        registry.register("restarts", "Sandboxes started again after their end", inner.restarts.clone());
        registry.register(
            "out_of_memory",
            "Sandboxes that ended for want of memory",
            inner.out_of_memory.clone(),
        );
        registry.register(
            "evicted",
            "Sandboxes stopped because of the size of their files",
            inner.evicted.clone(),
        );
        registry.register(
            "swept",
            "Things of sandboxes that nobody knew of, found at the start and removed",
            inner.swept.clone(),
        );
        registry.register(
            "relay_restarts",
            "Relays that ended and were started anew",
            inner.relay_restarts.clone(),
        );
        registry.register(
            "disk_used_bytes",
            "Bytes that files of sandboxes outside their mounts took when they were last measured",
            inner.disk_used.clone(),
        );
        registry.register("standby", "Sandboxes that are prepared ahead and wait", inner.standby.clone());
        registry.register(
            "standby_taken",
            "Sandboxes that became of one that was prepared ahead",
            inner.standby_taken.clone(),
        );
        Self(Arc::new(inner))
    }

    pub(crate) fn created(&self, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.0.creates.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    pub(crate) fn restarted(&self) {
        self.0.restarts.inc();
    }

    pub(crate) fn out_of_memory(&self) {
        self.0.out_of_memory.inc();
    }

    pub(crate) fn evicted(&self) {
        self.0.evicted.inc();
    }

    pub(crate) fn swept(&self, things: usize) {
        self.0.swept.inc_by(things as u64);
    }

    /// In all sandboxes together.
    pub(crate) fn disk_used(&self, bytes: u64) {
        self.0.disk_used.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many wait.
    pub(crate) fn standby(&self, count: usize) {
        self.0.standby.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn standby_taken(&self) {
        self.0.standby_taken.inc();
    }

    pub(crate) fn relay_restarted(&self) {
        self.0.relay_restarts.inc();
    }
}
