//! What the server counts, and how a backend's health looks as numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use stockade_core::Backend;

/// The content type of what [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: reads from memory take tenths of a millisecond, creates up to half a minute.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    method: &'static str,
    route: String,
}

/// The metrics of one server, and those of others that were registered with it.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    latency: Family<Endpoint, Histogram>,
    in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn new(mut registry: Registry, backend: Arc<dyn Backend>) -> Self {
        let requests = Family::default();
        let latency = Family::new_with_constructor(mk_histogram as fn() -> Histogram);
        let in_flight = Gauge::default();
        registry.register("stockade_http_requests", "Requests answered", requests.clone());
        registry.register(
            "stockade_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            latency.clone(),
        );
        registry.register(
            "stockade_http_requests_in_flight",
            "Requests without an answer yet",
            in_flight.clone(),
        );
        registry.register_collector(Box::new(BackendCollector(backend)));
        Self { registry, requests, latency, in_flight }
    }

    /// Counts a request as under way until it is dropped.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts a request. Without a status the caller hung up. Routes and methods are the server's own
    /// words, so the number of label sets is bounded.
    pub(crate) fn request(
        &self,
        method: &'static str,
        route: &str,
        status: Option<StatusCode>,
        elapsed: Duration,
    ) {
        let status = match status.map(|status| status.as_u16() / 100) {
            Some(1) => "1xx",
            Some(2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(_) => "5xx",
            None => "none",
        };
        self.requests.get_or_create(&Outcome { method, route: route.to_owned(), status }).inc();
        self.latency
            .get_or_create(&Endpoint { method, route: route.to_owned() })
            .observe(elapsed.as_secs_f64());
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut buffer = String::new();
        text::encode(&mut buffer, &self.registry)?;
        Ok(buffer)
    }
}

fn mk_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// A request under way.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A backend's health, read when it is asked for.
struct BackendCollector(Arc<dyn Backend>);

impl fmt::Debug for BackendCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BackendCollector").field(&self.0.name()).finish()
    }
}

impl Collector for BackendCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let health = self.0.health();
        let ready = f64::from(u8::from(health.ready));
        gauge(
            &mut encoder,
            "stockade_backend_ready",
            "Whether the backend's answers can be relied on",
            ready,
        )?;
        #[allow(clippy::cast_precision_loss)] // exact far beyond any number of sandboxes
        let sandboxes = health.sandboxes as f64;
        gauge(&mut encoder, "stockade_sandboxes", "Sandboxes known", sandboxes)?;
        if let Some(age) = health.proven_age {
            let help = "Age of the oldest proof that what is known is the truth";
            gauge(&mut encoder, "stockade_backend_proven_age_seconds", help, age.as_secs_f64())?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::<f64>::new(value).encode(metric)
}
