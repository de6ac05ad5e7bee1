//! What all operations of the backend share.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use stockade_core::{BackendError, SandboxId};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::call_error::CallError;
use crate::cluster::Cluster;
use crate::first_answer::FirstAnswers;
use crate::health::Health;
use crate::index::{Index, Origin};
use crate::keyed_lock::KeyedLock;
use crate::metrics::Metrics;
use crate::record::{PodRecord, Record, ServiceRecord};
use crate::settings::KubernetesSettings;

/// Answers from memory are never older than this.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10);
/// How many reads may go to the API server at once when memory does not answer them.
const DIRECT_READS: usize = 16;
/// How many creates may write at once. The API server of a small cluster takes some hundred writes a second.
const COLD_CREATES: usize = 64;

pub(crate) struct Inner {
    pub(crate) settings: KubernetesSettings,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) index: Arc<Index>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Metrics,
    pub(crate) creating: KeyedLock,
    pub(crate) direct_reads: Semaphore,
    pub(crate) first_answers: FirstAnswers,
    cold_creates: Semaphore,
}

impl Inner {
    pub(crate) fn new(
        settings: KubernetesSettings,
        cluster: Arc<Cluster>,
        index: Arc<Index>,
        health: Arc<Health>,
        metrics: Metrics,
    ) -> Self {
        let direct_reads = Semaphore::new(DIRECT_READS);
        let cold_creates = Semaphore::new(COLD_CREATES);
        let creating = KeyedLock::default();
        let first_answers = FirstAnswers::default();
        Self {
            settings,
            cluster,
            index,
            health,
            metrics,
            creating,
            direct_reads,
            first_answers,
            cold_creates,
        }
    }

    /// Whether memory may be answered from.
    pub(crate) fn is_fresh(&self) -> bool {
        self.index.proven_age(Instant::now()).is_some_and(|age| age < MAX_AGE)
    }

    /// A turn to write for a create. Held while writing and not while waiting: the ends of others' Pods, on a
    /// node that is gone, must not keep new sandboxes from being made.
    pub(crate) async fn turn_to_write(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, BackendError> {
        let turn = tokio::time::timeout_at(deadline, self.cold_creates.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(BackendError::Overloaded {
            what: "too many sandboxes are being created",
            retry_after: Duration::from_secs(2),
        })
    }

    pub(crate) fn failed(&self, error: CallError, doing: &str) -> BackendError {
        error.into_backend(doing, self.cluster.server())
    }

    /// Remembers a Pod that the API server just answered with; `None` when it is not one of ours.
    pub(crate) fn saw_pod(&self, id: &SandboxId, pod: &Pod) -> Option<PodRecord> {
        let (_, record) = PodRecord::of(pod).filter(|(of, _)| of == id)?;
        self.index.put(id, record.clone(), Origin::Direct, Timestamp::now());
        Some(record)
    }

    /// Remembers a Service that the API server just answered with; `None` when it is not one of ours.
    pub(crate) fn saw_service(&self, id: &SandboxId, service: &Service) -> Option<ServiceRecord> {
        let (_, record) = ServiceRecord::of(service).filter(|(of, _)| of == id)?;
        self.index.put(id, record.clone(), Origin::Direct, Timestamp::now());
        Some(record)
    }

    /// Remembers that the Pod of this UID is on its way out, or gone.
    pub(crate) fn saw_pod_deleted(&self, id: &SandboxId, uid: &str, left: Option<&Pod>) {
        match left.and_then(PodRecord::of) {
            // The answer may hold the Pod as it was before, so that its end is noted apart from it.
            Some((_, record)) => {
                self.index.put(id, record, Origin::Direct, Timestamp::now());
                self.index.terminate(id, uid, Timestamp::now());
            }
            None => self.index.remove::<PodRecord>(id, uid, Timestamp::now()),
        }
    }
}
