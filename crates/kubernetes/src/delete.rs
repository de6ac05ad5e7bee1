//! Ending a sandbox: its Pod and its Service, each by the UID that was seen.

use jiff::Timestamp;
use stockade_core::{BackendError, SandboxId};

use crate::call_error::CallError;
use crate::inner::Inner;
use crate::record::{PodRecord, Record, ServiceRecord};

/// How often a delete begins anew because another sandbox of the id took the place of the one it saw.
const ATTEMPTS: u32 = 3;

/// What became of one of the two.
enum Outcome {
    Gone,
    Replaced,
    Failed(CallError),
}

pub(crate) async fn delete(inner: &Inner, id: &SandboxId) -> Result<(), BackendError> {
    let mut failures = Vec::new();
    for attempt in 0..ATTEMPTS {
        let (pod, service) = targets(inner, id, attempt > 0).await?;
        let (pod, service) = tokio::join!(end_pod(inner, id, pod), end_service(inner, id, service));
        failures.clear();
        let mut replaced = false;
        for (part, outcome) in [("pod", pod), ("service", service)] {
            match outcome {
                Outcome::Gone => {}
                Outcome::Replaced => replaced = true,
                Outcome::Failed(error) => failures.push(format!("{part}: {error}")),
            }
        }
        if !replaced {
            break;
        }
        if attempt + 1 == ATTEMPTS {
            failures.push("pod: it was made anew each time; try again".to_owned());
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(BackendError::PartialCleanup { failures: failures.join(", ") })
    }
}

/// The UIDs to delete. The index knows them; what it does not know is read, because it may only be late.
async fn targets(
    inner: &Inner,
    id: &SandboxId,
    read: bool,
) -> Result<(Option<String>, Option<String>), BackendError> {
    let (pod, service) = inner.index.records(id);
    if let (false, true, Some(pod), Some(service)) = (read, inner.is_fresh(), &pod, &service) {
        return Ok((Some(pod.uid.to_string()), Some(service.uid.to_string())));
    }
    let doing = format!("deleting sandbox '{id}'");
    let (pod, service) = tokio::join!(inner.cluster.get_pod(id), inner.cluster.get_service(id));
    let pod = pod.map_err(|error| inner.failed(error, &doing))?;
    let service = service.map_err(|error| inner.failed(error, &doing))?;
    // An object of our name that is not ours is not ours to delete.
    let pod = pod.as_ref().and_then(PodRecord::of).map(|(_, record)| record.uid.into());
    let service = service.as_ref().and_then(ServiceRecord::of).map(|(_, record)| record.uid.into());
    Ok((pod, service))
}

async fn end_pod(inner: &Inner, id: &SandboxId, uid: Option<String>) -> Outcome {
    let Some(uid) = uid else { return Outcome::Gone };
    match inner.cluster.delete_pod(id, &uid, inner.settings.delete_grace).await {
        Ok(left) => {
            inner.saw_pod_deleted(id, &uid, left.as_ref());
            Outcome::Gone
        }
        Err(CallError::Conflict(_)) => Outcome::Replaced,
        Err(error) => Outcome::Failed(error),
    }
}

async fn end_service(inner: &Inner, id: &SandboxId, uid: Option<String>) -> Outcome {
    let Some(uid) = uid else { return Outcome::Gone };
    match inner.cluster.delete_service(id, &uid).await {
        Ok(()) => {
            inner.index.remove::<ServiceRecord>(id, &uid, Timestamp::now());
            Outcome::Gone
        }
        Err(CallError::Conflict(_)) => Outcome::Replaced,
        Err(error) => Outcome::Failed(error),
    }
}
