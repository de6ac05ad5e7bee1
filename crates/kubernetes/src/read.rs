//! Reading: from the index while it is proven fresh, from the API server while it is not, and always from
//! there before anything is said to be absent.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::LogParams;
use prometheus_client::metrics::counter::Counter;
use stockade_core::backend::{LogOptions, LogStream};
use stockade_core::sandbox::{FoundSandbox, Reconciliation, SandboxEvent};
use stockade_core::{BackendError, Sandbox, SandboxId};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::call_error::CallError;
use crate::cluster::CALL_LIMIT;
use crate::create::is_final;
use crate::index::{Index, Lookup, Origin, answer};
use crate::inner::Inner;
use crate::manifest::SANDBOX_CONTAINER;
use crate::record::{PodRecord, Record, ServiceRecord};

/// How often a wait looks by itself, beside what the watch tells.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

pub(crate) async fn get(inner: &Inner, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError> {
    if inner.is_fresh()
        && let Lookup::Found(sandbox) = inner.index.lookup(id)
    {
        return Ok(Some(sandbox));
    }
    let doing = format!("reading sandbox '{id}'");
    let (pod, service) = read_through(inner, id, &doing).await?;
    let now = Timestamp::now();
    if let Some(pod) = &pod {
        inner.index.put(id, pod.clone(), Origin::Direct, now);
    }
    if let Some(service) = &service {
        inner.index.put(id, service.clone(), Origin::Direct, now);
    }
    Ok(answer(inner.index.urls(), id, pod.as_ref(), service.as_ref(), None, now).map(Arc::new))
}

pub(crate) async fn list(inner: &Inner) -> Result<Vec<Arc<Sandbox>>, BackendError> {
    let now = Timestamp::now();
    if inner.is_fresh() {
        return Ok(inner.index.list(now));
    }
    let _permit = direct_read(inner).await?;
    let failed = |error| inner.failed(error, "listing sandboxes");
    let pods = inner.cluster.list::<PodRecord>();
    let services = inner.cluster.list::<ServiceRecord>();
    let ((pods, _), (services, _)) = tokio::try_join!(pods, services).map_err(failed)?;
    let index = Index::new(inner.index.urls().clone(), Counter::default());
    for (id, pod) in pods {
        index.put(&id, pod, Origin::Watch, now);
    }
    for (id, service) in services {
        index.put(&id, service, Origin::Watch, now);
    }
    Ok(index.list(now))
}

/// The truth: nothing here is read from memory.
pub(crate) async fn reconcile(inner: &Inner, id: &SandboxId) -> Result<Reconciliation, BackendError> {
    let doing = format!("reading the truth about sandbox '{id}'");
    let (namespace, objects) = tokio::join!(namespace_id(inner), read_through(inner, id, &doing));
    let backend_namespace = namespace?;
    let (pod, service) = objects?;
    let found = pod.map(|pod| {
        let address =
            service.filter(|service| service.leads_to(&pod.uid)).and_then(|service| service.address);
        FoundSandbox {
            incarnation: pod.uid.to_string(),
            url: address.map(|address| inner.index.urls().url(id, address)),
            identity: pod.identity,
            contract: pod.contract,
        }
    });
    Ok(Reconciliation { backend_namespace, found })
}

/// The UID of the namespace: another one means another world.
pub(crate) async fn namespace_id(inner: &Inner) -> Result<String, BackendError> {
    let name = inner.cluster.namespace();
    let doing = format!("reading namespace '{name}'");
    let uid = inner.cluster.namespace_uid().await.map_err(|error| inner.failed(error, &doing))?;
    uid.ok_or_else(|| BackendError::Unreachable {
        message: format!("namespace '{name}' does not exist; the next create makes it"),
        source: None,
    })
}

pub(crate) async fn wait_ready(
    inner: &Inner,
    id: &SandboxId,
    deadline: Instant,
) -> Result<Arc<Sandbox>, BackendError> {
    let mut changes = inner.index.subscribe();
    loop {
        changes.borrow_and_update();
        let sandbox = get(inner, id).await?.ok_or_else(|| BackendError::NotFound { id: id.clone() })?;
        let now = Instant::now();
        if is_final(&sandbox) || now >= deadline {
            return Ok(sandbox);
        }
        let look_at = deadline.min(now + LOOK_AGAIN);
        if inner.is_fresh() {
            let _ = timeout_at(look_at, changes.changed()).await;
        } else {
            // Each look is a read of the API server now, which has trouble enough.
            sleep_until(look_at).await;
        }
    }
}

pub(crate) async fn events(inner: &Inner, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError> {
    let pod = live_pod(inner, id).await?;
    let doing = format!("reading the events of sandbox '{id}'");
    let _permit = direct_read(inner).await?;
    let events = inner.cluster.events_of(&pod.uid).await.map_err(|error| inner.failed(error, &doing))?;
    let mut events: Vec<SandboxEvent> = events
        .into_iter()
        .map(|event| SandboxEvent {
            last_seen: event
                .last_timestamp
                .map(|time| time.0)
                .or(event.event_time.map(|time| time.0))
                .or(event.metadata.creation_timestamp.map(|time| time.0)),
            count: event.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
            warning: event.type_.as_deref() == Some("Warning"),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        })
        .collect();
    // The kubelet writes none for this.
    events.extend(pod.memory_kill.map(|kill| SandboxEvent {
        last_seen: Some(kill.at),
        count: 1,
        warning: true,
        reason: kill.diagnosis.reason.into(),
        message: kill.diagnosis.message.unwrap_or_default().into(),
    }));
    events.sort_by_key(|event| event.last_seen);
    Ok(events)
}

pub(crate) async fn logs(
    inner: &Inner,
    id: &SandboxId,
    options: LogOptions,
) -> Result<LogStream, BackendError> {
    live_pod(inner, id).await?;
    let doing = format!("reading the log of sandbox '{id}'");
    let params = LogParams {
        container: Some(SANDBOX_CONTAINER.to_owned()),
        follow: options.follow,
        previous: options.previous,
        tail_lines: Some(i64::from(options.tail_lines)),
        ..LogParams::default()
    };
    let reader = inner.cluster.log(id, &params).await.map_err(|error| match error {
        CallError::Invalid(said) => {
            BackendError::NotReady { message: format!("there is no log yet: {said}") }
        }
        error => inner.failed(error, &doing),
    })?;
    Ok(crate::log_stream::pieces(reader))
}

/// The sandbox's Pod.
async fn live_pod(inner: &Inner, id: &SandboxId) -> Result<PodRecord, BackendError> {
    let not_found = || BackendError::NotFound { id: id.clone() };
    if inner.is_fresh()
        && let Some(pod) = inner.index.records(id).0
    {
        return if pod.terminating { Err(not_found()) } else { Ok(pod) };
    }
    let (pod, _) = read_through(inner, id, &format!("reading sandbox '{id}'")).await?;
    pod.filter(|pod| !pod.terminating).ok_or_else(not_found)
}

/// Pod and Service as they are now.
async fn read_through(
    inner: &Inner,
    id: &SandboxId,
    doing: &str,
) -> Result<(Option<PodRecord>, Option<ServiceRecord>), BackendError> {
    let _permit = direct_read(inner).await?;
    let both = tokio::try_join!(inner.cluster.get_pod(id), inner.cluster.get_service(id));
    let (pod, service) = both.map_err(|error| inner.failed(error, doing))?;
    Ok((pod.as_ref().and_then(own::<PodRecord>), service.as_ref().and_then(own::<ServiceRecord>)))
}

fn own<R: Record>(object: &R::Object) -> Option<R> {
    R::of(object).map(|(_, record)| record)
}

/// Bounds what overload can send to the API server: who waits too long for a turn is told to come again.
async fn direct_read(inner: &Inner) -> Result<SemaphorePermit<'_>, BackendError> {
    inner.metrics.direct_read();
    let turn = timeout(CALL_LIMIT, inner.direct_reads.acquire()).await;
    turn.ok().and_then(Result::ok).ok_or(BackendError::Overloaded {
        what: "too many reads wait for the Kubernetes API server",
        retry_after: CALL_LIMIT,
    })
}
