//! Saying what is made and ended as it happens.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use stockade_core::backend::{BackendHealth, Capabilities, LogOptions, LogStream};
use stockade_core::sandbox::{Reconciliation, SandboxEvent};
use stockade_core::{Backend, BackendError, Sandbox, SandboxId, SandboxSpec};

use crate::printable::printable;

/// How much older than its create a sandbox may be to count as made by it: clocks are coarse.
const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// A backend that says on standard output what it makes and ends.
pub(super) struct Narrated(Arc<dyn Backend>);

impl Narrated {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }
}

/// One line, whatever a request had in it; that nobody reads it any more is no reason to stop serving.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", printable(line));
}

fn failed(what: &str, id: &SandboxId, error: &BackendError) {
    say(&format!("! {what} {id}: {error}"));
}

/// Whether the create that began at this time made the sandbox, and did not find it.
fn is_new(sandbox: &Sandbox, began: Timestamp) -> bool {
    let earliest = began.checked_sub(CLOCK_SLACK).unwrap_or(began);
    sandbox.created_at.is_some_and(|made| made >= earliest)
}

#[async_trait]
impl Backend for Narrated {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn health(&self) -> BackendHealth {
        self.0.health()
    }

    async fn create(&self, spec: &SandboxSpec, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        let (began, clock) = (Timestamp::now(), Instant::now());
        let result = self.0.create(spec, deadline).await;
        match &result {
            Ok(sandbox) if is_new(sandbox, began) => {
                let took = clock.elapsed().as_secs_f64() * 1e3;
                say(&format!("+ {}  {}  user {}  {took:.1} ms", sandbox.id, sandbox.url, spec.user));
            }
            Ok(_) => {}
            Err(error) => failed("create", &spec.id, error),
        }
        result
    }

    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
        self.0.get(id).await
    }

    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError> {
        self.0.list().await
    }

    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError> {
        // Read from memory, so that a delete of nothing is not shown as one of something.
        let was_there = matches!(self.0.get(id).await, Ok(Some(_)));
        let result = self.0.delete(id).await;
        match &result {
            Ok(()) if was_there => say(&format!("- {id}")),
            Ok(()) => {}
            Err(error) => failed("delete", id, error),
        }
        result
    }

    async fn reconcile(&self, id: &SandboxId) -> Result<Reconciliation, BackendError> {
        self.0.reconcile(id).await
    }

    async fn namespace_id(&self) -> Result<String, BackendError> {
        self.0.namespace_id().await
    }

    async fn wait_ready(&self, id: &SandboxId, deadline: Instant) -> Result<Arc<Sandbox>, BackendError> {
        self.0.wait_ready(id, deadline).await
    }

    async fn events(&self, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
        self.0.events(id).await
    }

    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError> {
        self.0.logs(id, options).await
    }

    async fn pause(&self, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        let result = self.0.pause(id).await;
        match &result {
            Ok(_) => say(&format!("= {id}  paused")),
            Err(error) => failed("pause", id, error),
        }
        result
    }

    async fn resume(&self, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        let result = self.0.resume(id).await;
        match &result {
            Ok(_) => say(&format!("= {id}  runs on")),
            Err(error) => failed("resume", id, error),
        }
        result
    }
}
