//! Stopping a sandbox where it is, and letting it run on.
//!
//! The record says `paused` before anything stops and until everything runs, so that a server that dies in
//! between is followed by one that looks at the group itself.

use std::sync::Arc;
use std::time::Duration;

use stockade_core::{BackendError, Sandbox, SandboxId};
use tokio::time::timeout;

use super::entry::{Entry, Turn};
use super::error::{StartFailure, chain, timed_out};
use super::inner::Inner;
use crate::cgroup::{CgroupError, SandboxCgroup};
use crate::relay::{Moment, Thaw};
use crate::state::record::Phase;

/// How long it may take until others have changed the sandbox.
const TURN: Duration = Duration::from_secs(7);

pub(crate) async fn pause(inner: &Arc<Inner>, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
    let (entry, turn) = turn(inner, id).await?;
    let now = entry.now();
    if entry.with(|record| record.life.paused) {
        return Ok(entry.seen().sandbox);
    }
    if entry.phase() == Phase::Failed {
        return Err(not_running(&entry, "paused"));
    }
    let open = entry.open();
    let Some(cgroup) = open.cgroup.filter(|_| now.runs && now.ready) else {
        return Err(not_running(&entry, "paused"));
    };
    let since = Moment::now();
    inner.write(&entry, &turn, |record| record.life.paused = true)?;
    if let Err(failure) = inner.in_cgroup(&cgroup, SandboxCgroup::freeze).await {
        inner.write(&entry, &turn, |record| record.life.paused = false)?;
        return Err(match failure {
            StartFailure::Cgroup(error @ CgroupError::Unavailable { .. }) => {
                BackendError::Refused { message: format!("sandbox '{id}' cannot be paused: {error}") }
            }
            other => other.into_backend(id),
        });
    }
    entry.happened(false, "Paused", "its processes are stopped");
    arm(inner, &entry, &cgroup, since).await;
    Ok(entry.seen().sandbox)
}

pub(crate) async fn resume(inner: &Arc<Inner>, id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
    let (entry, turn) = turn(inner, id).await?;
    if entry.phase() == Phase::Failed {
        return Err(not_running(&entry, "resumed"));
    }
    if !entry.with(|record| record.life.paused) {
        return Ok(entry.seen().sandbox);
    }
    if let Some(cgroup) = entry.open().cgroup {
        let thawed = inner.in_cgroup(&cgroup, SandboxCgroup::thaw).await;
        thawed.map_err(|failure| failure.into_backend(id))?;
    }
    if let Err(error) = inner.relays.current().resume(id).await {
        tracing::warn!(sandbox_id = %id, error = chain(&error), "the relay cannot be told that it runs again");
    }
    inner.write(&entry, &turn, |record| record.life.paused = false)?;
    entry.happened(false, "Resumed", "its processes run on");
    Ok(entry.seen().sandbox)
}

/// Why something cannot be done with one that does not run.
fn not_running(entry: &Entry, done: &str) -> BackendError {
    let sandbox = entry.seen().sandbox;
    let why = sandbox.message.as_deref().or(sandbox.reason.as_deref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let reason = sandbox.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = format!("sandbox '{}' is {}{reason} and cannot be {done}{why}", entry.id, sandbox.status);
    BackendError::NotReady { message }
}

/// The relay has let it run on, because somebody connects.
pub(crate) async fn woken(inner: Arc<Inner>, entry: Arc<Entry>) {
    let turn = entry.turn().await;
    if entry.phase() != Phase::Live || !entry.with(|record| record.life.paused) {
        return;
    }
    // It may have been paused again since: the group knows.
    if is_frozen(&inner, &entry).await {
        return;
    }
    match inner.write(&entry, &turn, |record| record.life.paused = false) {
        Ok(()) => entry.happened(false, "Woken", "its processes run on, because somebody connects"),
        Err(error) => tracing::error!(sandbox_id = %entry.id, %error, "that it runs cannot be written down"),
    }
}

/// Whether its processes are stopped.
pub(crate) async fn is_frozen(inner: &Inner, entry: &Entry) -> bool {
    let Some(cgroup) = entry.open().cgroup else { return false };
    inner.in_cgroup(&cgroup, SandboxCgroup::is_frozen).await.unwrap_or(false)
}

/// Has the next connection wake it.
pub(crate) async fn arm(inner: &Inner, entry: &Entry, cgroup: &SandboxCgroup, since: Moment) {
    let told = match cgroup.thaw_handle() {
        Ok(Some((descriptor, bytes))) => {
            let thaw = Thaw { descriptor, bytes: bytes.to_vec() };
            inner.relays.current().pause(&entry.id, since, thaw).await.map_err(|error| chain(&error))
        }
        Ok(None) => return,
        Err(error) => Err(chain(&error)),
    };
    if let Err(error) = told {
        let message = "the next connection will not wake it; resume does";
        tracing::warn!(sandbox_id = %entry.id, error, "{message}");
        entry.happened(true, "NotArmed", message);
    }
}

async fn turn(inner: &Inner, id: &SandboxId) -> Result<(Arc<Entry>, Turn), BackendError> {
    let entry = inner.visible(id)?;
    let turn = timeout(TURN, entry.turn()).await;
    let turn = turn.map_err(|_| timed_out("waiting for others that change the sandbox", TURN))?;
    // It may have gone while others had their turn.
    if !entry.seen().visible {
        return Err(BackendError::NotFound { id: id.clone() });
    }
    Ok((entry, turn))
}
