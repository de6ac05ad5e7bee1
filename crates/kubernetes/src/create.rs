//! Making a sandbox: two writes, a Pod and the Service it owns.
//!
//! What can happen in between, and what makes it whole:
//!
//! | what | then |
//! | --- | --- |
//! | the Service cannot be made | the Pod this call made is removed again |
//! | this process dies between the writes | the next create of the id, or the repair loop, adds the Service |
//! | another process makes the same id | one write of the name wins; the other reads it and compares |
//! | the former Pod of the id is still ending | it is waited for, within the caller's time |
//! | the former Service of the id is still there | it is removed by UID and made anew |

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use stockade_core::backend::Conflict;
use stockade_core::{BackendError, Sandbox, SandboxId, SandboxSpec, Status};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::call_error::CallError;
use crate::index::{Origin, answer};
use crate::inner::Inner;
use crate::manifest;
use crate::namespace;
use crate::record::{PodRecord, Record, ServiceRecord};
use crate::sameness;

/// How often one create begins anew because what it saw was gone or replaced a moment later.
const ATTEMPTS: u32 = 8;
/// How often the truth is read while the former Pod ends, beside the watch.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The longest a create is worth waiting for: callers give up at 30 s.
const CREATE_LIMIT: Duration = Duration::from_secs(25);

/// A Pod that can be used: just made by this call, or there already and the same.
struct Ready {
    pod: PodRecord,
    is_new: bool,
}

pub(crate) async fn create(
    inner: &Inner,
    spec: &SandboxSpec,
    deadline: Instant,
) -> Result<Sandbox, BackendError> {
    let deadline = deadline.min(Instant::now() + CREATE_LIMIT);
    let mounts = inner.settings.storage.resolve(spec, inner.settings.lark.support())?;
    let pod = manifest::pod(&inner.settings, spec, &mounts);
    let _turn = match timeout_at(deadline, inner.creating.lock(&spec.id)).await {
        Ok(turn) => turn,
        Err(_) => {
            return Err(BackendError::TimedOut {
                operation: "waiting for another create of the same sandbox",
                limit: CREATE_LIMIT,
            });
        }
    };
    let ready = make_pod(inner, spec, &pod, deadline).await?;
    match make_service(inner, spec, &ready.pod, deadline).await {
        Ok(service) => finish(inner, spec, &ready.pod, &service),
        Err(error) => {
            if ready.is_new {
                roll_back(inner, spec, &ready.pod).await;
            }
            Err(error)
        }
    }
}

fn finish(
    inner: &Inner,
    spec: &SandboxSpec,
    pod: &PodRecord,
    service: &ServiceRecord,
) -> Result<Sandbox, BackendError> {
    answer(inner.index.urls(), &spec.id, Some(pod), Some(service), None, Timestamp::now()).ok_or_else(|| {
        BackendError::Rejected {
            message: format!(
                "the Service of sandbox '{}' has no {} port; is another controller changing it?",
                spec.id,
                inner.settings.service_type.as_str()
            ),
        }
    })
}

async fn make_pod(
    inner: &Inner,
    spec: &SandboxSpec,
    wanted: &Pod,
    deadline: Instant,
) -> Result<Ready, BackendError> {
    let id = &spec.id;
    let doing = format!("creating the Pod of sandbox '{id}'");
    let mut expect_present = inner.index.records(id).0.is_some();
    for _ in 0..ATTEMPTS {
        if Instant::now() >= deadline {
            return Err(BackendError::TimedOut { operation: "creating the Pod", limit: CREATE_LIMIT });
        }
        // A write that would be refused is spared when the index knows the Pod; the truth decides anyway.
        let live = if expect_present {
            inner.cluster.get_pod(id).await.map_err(|error| inner.failed(error, &doing))?
        } else {
            let turn_to_write = inner.turn_to_write(deadline).await?;
            let made = inner.cluster.create_pod(wanted).await;
            drop(turn_to_write);
            match made {
                Ok(pod) => {
                    let record = inner.saw_pod(id, &pod).ok_or_else(|| not_ours(spec))?;
                    return Ok(Ready { pod: record, is_new: true });
                }
                Err(CallError::AlreadyExists) => {
                    inner.cluster.get_pod(id).await.map_err(|error| inner.failed(error, &doing))?
                }
                Err(error) if error.is_namespace_missing() => {
                    let made = namespace::ensure(&inner.cluster).await;
                    made.map_err(|error| inner.failed(error, "making the namespace"))?;
                    continue;
                }
                Err(error) => return Err(inner.failed(error, &doing)),
            }
        };
        expect_present = false;
        let Some(live) = live else { continue };
        let conflict = |conflict| BackendError::Conflict { id: id.clone(), conflict };
        let same = sameness::check(&live, wanted, spec, inner.settings.storage.contract);
        let Some(record) = inner.saw_pod(id, &live) else {
            return Err(not_ours(spec));
        };
        if record.terminating {
            wait_until_gone(inner, spec, &record.uid, deadline).await?;
            continue;
        }
        same.map_err(conflict)?;
        if record.is_finished() {
            // An evicted or lost Pod never runs again; whoever creates the sandbox wants one that does.
            info!(sandbox_id = %id, status = %record.status, "replacing a sandbox whose Pod has ended");
            let deleted = inner.cluster.delete_pod(id, &record.uid, inner.settings.delete_grace).await;
            match deleted {
                Ok(pod) => inner.saw_pod_deleted(id, &record.uid, pod.as_ref()),
                Err(CallError::Conflict(_)) => {}
                Err(error) => return Err(inner.failed(error, &doing)),
            }
            continue;
        }
        return Ok(Ready { pod: record, is_new: false });
    }
    Err(BackendError::Unreachable {
        message: format!(
            "sandbox '{id}' was created and deleted by others {ATTEMPTS} times meanwhile; try again"
        ),
        source: None,
    })
}

fn not_ours(spec: &SandboxSpec) -> BackendError {
    BackendError::Conflict { id: spec.id.clone(), conflict: Conflict::Mounts }
}

/// Waits for the end of the Pod of this UID: by the watch, and by a look of our own in case it is broken.
async fn wait_until_gone(
    inner: &Inner,
    spec: &SandboxSpec,
    uid: &str,
    deadline: Instant,
) -> Result<(), BackendError> {
    let started = Instant::now();
    let id = &spec.id;
    let mut changes = inner.index.subscribe();
    let mut look_at = started + LOOK_AGAIN;
    loop {
        changes.borrow_and_update();
        let known = inner.index.records(id).0;
        if known.is_none_or(|pod| &*pod.uid != uid) {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(BackendError::Terminating { id: id.clone(), waited: now - started });
        }
        if now < look_at {
            let _ = timeout_at(look_at.min(deadline), changes.changed()).await;
        } else {
            look_at = now + LOOK_AGAIN;
            match inner.cluster.get_pod(id).await {
                Ok(None) => inner.index.remove::<PodRecord>(id, uid, Timestamp::now()),
                Ok(Some(pod)) => drop(inner.saw_pod(id, &pod)),
                Err(error) => return Err(inner.failed(error, "waiting for the former Pod to end")),
            }
        }
    }
}

async fn make_service(
    inner: &Inner,
    spec: &SandboxSpec,
    pod: &PodRecord,
    deadline: Instant,
) -> Result<ServiceRecord, BackendError> {
    let id = &spec.id;
    if let Some(known) = inner.index.records(id).1
        && inner.is_fresh()
        && known.leads_to(&pod.uid)
        && known.address.is_some()
    {
        return Ok(known);
    }
    let _turn_to_write = inner.turn_to_write(deadline).await?;
    add_service(inner, id, &pod.uid).await
}

/// Makes the Service of the Pod of this UID, or finds the one that leads to it.
pub(crate) async fn add_service(
    inner: &Inner,
    id: &SandboxId,
    pod_uid: &str,
) -> Result<ServiceRecord, BackendError> {
    let doing = format!("creating the Service of sandbox '{id}'");
    let wanted: Service = manifest::service(&inner.settings, id, pod_uid);
    for _ in 0..ATTEMPTS {
        match inner.cluster.create_service(&wanted).await {
            Ok(service) => {
                return inner.saw_service(id, &service).ok_or_else(|| BackendError::Rejected {
                    message: format!("the Service of sandbox '{id}' came back without our labels"),
                });
            }
            Err(CallError::AlreadyExists) => {}
            Err(error) => return Err(inner.failed(error, &doing)),
        }
        let live = inner.cluster.get_service(id).await.map_err(|error| inner.failed(error, &doing))?;
        let Some(live) = live else { continue };
        let Some((_, record)) = ServiceRecord::of(&live) else {
            return Err(BackendError::Conflict { id: id.clone(), conflict: Conflict::Mounts });
        };
        if record.leads_to(pod_uid) {
            inner.index.put(id, record.clone(), Origin::Direct, Timestamp::now());
            return Ok(record);
        }
        // The former Pod's, on its way out with it: out of the way at once, that one and no other.
        match inner.cluster.delete_service(id, &record.uid).await {
            Ok(()) | Err(CallError::Conflict(_)) => {
                inner.index.remove::<ServiceRecord>(id, &record.uid, Timestamp::now());
            }
            Err(error) => return Err(inner.failed(error, &doing)),
        }
    }
    Err(BackendError::Unreachable {
        message: format!("the Service of sandbox '{id}' kept changing under {ATTEMPTS} attempts; try again"),
        source: None,
    })
}

async fn roll_back(inner: &Inner, spec: &SandboxSpec, pod: &PodRecord) {
    match inner.cluster.delete_pod(&spec.id, &pod.uid, inner.settings.delete_grace).await {
        Ok(left) => {
            inner.saw_pod_deleted(&spec.id, &pod.uid, left.as_ref());
            info!(sandbox_id = %spec.id, "removed the Pod again because its Service could not be made");
        }
        Err(CallError::Conflict(_)) => {}
        Err(error) => warn!(
            sandbox_id = %spec.id, error = ?error,
            "a Pod without Service is left; the repair loop will complete it, a delete will remove it"
        ),
    }
}

/// Whether a sandbox in this state will not become ready by waiting.
pub(crate) fn is_final(sandbox: &Sandbox) -> bool {
    sandbox.ready || matches!(sandbox.status, Status::Succeeded | Status::Failed | Status::NotFound)
}
