//! A backend in memory, for tests: it does what it is told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use futures::stream;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use stockade_core::backend::{BackendHealth, Capabilities, Conflict, Features, LogOptions, LogStream};
use stockade_core::layout::LarkSupport;
use stockade_core::sandbox::{FoundSandbox, Reconciliation, SandboxEvent};
use stockade_core::{Backend, BackendError, ContractVersion, Sandbox, SandboxId, SandboxSpec, Status};
use tokio::sync::Semaphore;

use crate::{Access, AllowedHosts, ServerSettings, ServerState, router};

/// The key of servers made by [`mk_router`].
pub(crate) const KEY: &str = "test-key";

/// A server in front of this backend, which wants [`KEY`].
pub(crate) fn mk_router(backend: &Arc<MemoryBackend>) -> Router {
    mk_router_with(backend, Access::key(&SecretString::from(KEY)))
}

/// The same for whoever may call.
pub(crate) fn mk_router_with(backend: &Arc<MemoryBackend>, access: Access) -> Router {
    let settings = ServerSettings { access, allowed_hosts: AllowedHosts::default(), metrics_need_key: false };
    let backend = Arc::clone(backend) as Arc<dyn Backend>;
    router(ServerState::new(backend, settings, Registry::default()))
}

/// Makes the error of every call from now on.
type Failure = Box<dyn Fn() -> BackendError + Send>;

/// Sandboxes in memory.
pub(crate) struct MemoryBackend {
    contract: ContractVersion,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
    calls: Mutex<Vec<String>>,
    failure: Mutex<Option<Failure>>,
    panics: AtomicBool,
    /// Creates wait for a permit each; all there are by default.
    pub(crate) creates: Semaphore,
    /// A permit for each create that has begun.
    pub(crate) begun: Semaphore,
    /// Answers of creates wait for a permit each; all there are by default.
    pub(crate) answers: Semaphore,
    /// How many answers began to wait so.
    pub(crate) waiting: AtomicUsize,
}

impl MemoryBackend {
    pub(crate) fn new(contract: ContractVersion) -> Arc<Self> {
        Arc::new(Self {
            contract,
            sandboxes: Mutex::default(),
            calls: Mutex::default(),
            failure: Mutex::default(),
            panics: AtomicBool::new(false),
            creates: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: Semaphore::new(0),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Puts this many sandboxes in.
    pub(crate) fn fill(&self, count: usize) {
        let ids = (0..count).map(|number| SandboxId::new(&format!("s{number:05}")).unwrap());
        let sandboxes = ids.map(|id| (id.clone(), Arc::new(self.mk_sandbox(&SandboxSpec::new(id)))));
        self.sandboxes.lock().extend(sandboxes);
    }

    /// Fails every call from now on.
    pub(crate) fn fail(&self, failure: impl Fn() -> BackendError + Send + 'static) {
        *self.failure.lock() = Some(Box::new(failure));
    }

    /// Panics in every call from now on, or no more.
    pub(crate) fn panic(&self, panics: bool) {
        self.panics.store(panics, Ordering::Relaxed);
    }

    /// What it was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }

    /// Changes the sandbox as a backend would.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Sandbox)) {
        let mut sandboxes = self.sandboxes.lock();
        let entry = sandboxes.get_mut(id).unwrap();
        let mut sandbox = Sandbox::clone(entry);
        change(&mut sandbox);
        *entry = Arc::new(sandbox);
    }

    fn called(&self, call: &str, id: &str) -> Result<(), BackendError> {
        self.calls.lock().push(format!("{call} {id}").trim().to_owned());
        assert!(!self.panics.load(Ordering::Relaxed), "told to panic");
        self.failure.lock().as_ref().map_or(Ok(()), |failure| Err(failure()))
    }

    fn find(&self, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        self.sandboxes.lock().get(id).cloned().ok_or(BackendError::NotFound { id: id.clone() })
    }

    fn mk_sandbox(&self, spec: &SandboxSpec) -> Sandbox {
        Sandbox {
            url: format!("http://node.internal:30000/{}", spec.id),
            id: spec.id.clone(),
            status: Status::Pending,
            ready: false,
            reason: Some("ContainerCreating".into()),
            message: Some("the image is being pulled".into()),
            created_at: Some("2026-11-01T02:03:04Z".parse().unwrap()),
            identity: Some(spec.identity()),
            contract: Some(self.contract),
            disk_used: None,
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            lark: LarkSupport { runtime: true, broker: false },
            contract: self.contract,
            features: Features::default(),
        }
    }

    fn health(&self) -> BackendHealth {
        let failure = self.failure.lock().as_ref().map(|failure| failure().to_string());
        BackendHealth {
            ready: failure.is_none(),
            parts: vec![("memory", failure)],
            sandboxes: self.sandboxes.lock().len(),
            proven_age: Some(Duration::from_millis(1500)),
        }
    }

    async fn create(&self, spec: &SandboxSpec, _: Instant) -> Result<Arc<Sandbox>, BackendError> {
        self.called("create", spec.id.as_str())?;
        self.begun.add_permits(1);
        let _turn = self.creates.acquire().await.unwrap();
        let mut sandboxes = self.sandboxes.lock();
        if let Some(there) = sandboxes.get(&spec.id) {
            if there.identity != Some(spec.identity()) {
                return Err(BackendError::Conflict { id: spec.id.clone(), conflict: Conflict::User });
            }
            return Ok(Arc::clone(there));
        }
        let sandbox = Arc::new(self.mk_sandbox(spec));
        sandboxes.insert(spec.id.clone(), Arc::clone(&sandbox));
        Ok(sandbox)
    }

    async fn wait_answering(&self, made: Arc<Sandbox>, _: Instant) -> Arc<Sandbox> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.answers.acquire().await.unwrap().forget();
        self.find(&made.id).unwrap_or(made)
    }

    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
        self.called("get", id.as_str())?;
        Ok(self.sandboxes.lock().get(id).cloned())
    }

    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError> {
        self.called("list", "")?;
        Ok(self.sandboxes.lock().values().cloned().collect())
    }

    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError> {
        self.called("delete", id.as_str())?;
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    async fn reconcile(&self, id: &SandboxId) -> Result<Reconciliation, BackendError> {
        self.called("reconcile", id.as_str())?;
        let found = self.sandboxes.lock().get(id).map(|sandbox| FoundSandbox {
            incarnation: "incarnation-1".into(),
            url: Some(sandbox.url.clone()),
            identity: sandbox.identity.clone(),
            contract: sandbox.contract,
        });
        Ok(Reconciliation { backend_namespace: "namespace-1".into(), found })
    }

    async fn namespace_id(&self) -> Result<String, BackendError> {
        self.called("namespace", "")?;
        Ok("namespace-1".into())
    }

    async fn wait_ready(&self, id: &SandboxId, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        self.called("wait", id.as_str())?;
        tokio::time::sleep_until(deadline.into()).await;
        self.find(id)
    }

    async fn events(&self, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
        self.called("events", id.as_str())?;
        self.find(id)?;
        Ok(vec![SandboxEvent {
            last_seen: None,
            count: 3,
            warning: true,
            reason: "FailedMount".into(),
            message: "no such directory".into(),
        }])
    }

    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError> {
        self.called("logs", id.as_str())?;
        self.find(id)?;
        let first = Bytes::from(format!("{options:?}\n"));
        Ok(Box::pin(stream::iter([Ok(first), Ok(Bytes::from_static(b"second\n"))])))
    }
}
