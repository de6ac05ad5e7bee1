//! The backend as the server sees it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use stockade_core::backend::{BackendHealth, Capabilities, Features, LogOptions, LogStream};
use stockade_core::sandbox::{Reconciliation, SandboxEvent};
use stockade_core::{Backend, BackendError, Sandbox, SandboxId, SandboxSpec};
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use crate::cluster::Cluster;
use crate::connect::{self, KUBECONFIG_WAIT, StartError};
use crate::health::Health;
use crate::index::{Index, UrlScheme};
use crate::inner::{Inner, MAX_AGE};
use crate::metrics::Metrics;
use crate::record::{PodRecord, ServiceRecord};
use crate::settings::KubernetesSettings;
use crate::watch::{self, Feed};
use crate::{create, delete, first_answer, namespace, read, repair, warnings};

/// Sandboxes as Pods of one namespace of one cluster.
///
/// Dropping it ends its watches; the sandboxes stay.
pub struct KubernetesBackend {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

impl KubernetesBackend {
    /// Finds the cluster and begins to watch it. A kubeconfig is waited for, the API server is not: until it
    /// answers, [`Backend::health`] says what is wrong.
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn start(
        settings: KubernetesSettings,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, StartError> {
        let connection = connect::connect(&settings, KUBECONFIG_WAIT).await?;
        info!(server = connection.server, namespace = settings.namespace, "Kubernetes backend");
        Ok(Self::with_client(settings, connection.client, connection.server, registry))
    }

    /// The same on a client made elsewhere. `server` is what messages call the API server.
    #[must_use]
    pub fn with_client(
        settings: KubernetesSettings,
        client: kube::Client,
        server: String,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::new(registry);
        let cluster = Cluster::new(client, settings.namespace.clone(), server, metrics.clone());
        let cluster = Arc::new(cluster);
        let urls = UrlScheme { node_host: settings.node_host.clone(), namespace: settings.namespace.clone() };
        let index = Arc::new(Index::new(urls, metrics.memory_kills()));
        let health = Arc::new(Health::starting());
        let feed = Feed {
            cluster: Arc::clone(&cluster),
            index: Arc::clone(&index),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
        };
        let inner = Arc::new(Inner::new(settings, Arc::clone(&cluster), index, Arc::clone(&health), metrics));
        let tasks = vec![
            spawn_again_and_again("watch of Pods", feed.clone(), watch::follow::<PodRecord>),
            spawn_again_and_again("watch of Services", feed.clone(), watch::follow::<ServiceRecord>),
            spawn_again_and_again("watch of events", feed, warnings::follow),
            spawn_again_and_again("repair", Arc::clone(&inner), repair::run),
            spawn_again_and_again("staleness", Arc::clone(&inner), tell_staleness),
            tokio::spawn(namespace::ensure_at_start(cluster, health)).abort_handle(),
        ];
        Arc::new(Self { inner, tasks })
    }
}

impl Drop for KubernetesBackend {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts a task that never ends, and starts it anew should a fault of ours end it: a server without its watch
/// would only ever read directly.
fn spawn_again_and_again<A, F>(name: &'static str, argument: A, task: fn(A) -> F) -> AbortHandle
where
    A: Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let run = async move {
        loop {
            let once = AssertUnwindSafe(task(argument.clone())).catch_unwind().await;
            error!(task = name, panicked = once.is_err(), "a task ended; starting it again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::spawn(run).abort_handle()
}

/// Says once when memory can no longer be relied on, and once when it can again.
async fn tell_staleness(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut was_fresh = None;
    loop {
        ticks.tick().await;
        let fresh = inner.is_fresh();
        match (was_fresh, fresh) {
            (Some(true), false) => warn!(
                max_age_s = MAX_AGE.as_secs(),
                "the index is not proven fresh any more; reads go to the API server"
            ),
            (Some(false), true) => info!("the index is proven fresh again; reads come from memory"),
            (None, false) => continue,
            _ => {}
        }
        was_fresh = Some(fresh);
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn capabilities(&self) -> Capabilities {
        let settings = &self.inner.settings;
        Capabilities {
            lark: settings.lark.support(),
            contract: settings.storage.contract,
            features: Features::default(),
        }
    }

    fn health(&self) -> BackendHealth {
        let inner = &self.inner;
        let mut parts = inner.health.parts();
        let proven_age = inner.index.proven_age(tokio::time::Instant::now());
        let fresh = proven_age.is_some_and(|age| age < MAX_AGE);
        let problem = (!fresh).then(|| "not proven fresh; reads go to the API server".to_owned());
        parts.push(("index", problem));
        // A watch that breaks and is read around keeps the index proven; then answers can be relied on.
        let ready = parts
            .iter()
            .filter(|(part, _)| matches!(*part, "index" | "namespace"))
            .all(|(_, problem)| problem.is_none());
        BackendHealth { ready, parts, sandboxes: inner.index.len(), proven_age }
    }

    async fn create(&self, spec: &SandboxSpec, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        create::create(&self.inner, spec, deadline.into()).await.map(Arc::new)
    }

    async fn wait_answering(&self, made: Arc<Sandbox>, deadline: Instant) -> Arc<Sandbox> {
        first_answer::wait(&self.inner, made, deadline.into()).await
    }

    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
        read::get(&self.inner, id).await
    }

    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError> {
        read::list(&self.inner).await
    }

    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError> {
        delete::delete(&self.inner, id).await
    }

    async fn reconcile(&self, id: &SandboxId) -> Result<Reconciliation, BackendError> {
        read::reconcile(&self.inner, id).await
    }

    async fn namespace_id(&self) -> Result<String, BackendError> {
        read::namespace_id(&self.inner).await
    }

    async fn wait_ready(&self, id: &SandboxId, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        read::wait_ready(&self.inner, id, deadline.into()).await
    }

    async fn events(&self, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
        read::events(&self.inner, id).await
    }

    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError> {
        read::logs(&self.inner, id, options).await
    }
}
