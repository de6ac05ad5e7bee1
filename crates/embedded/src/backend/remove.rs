//! Taking a sandbox away: the reverse of making it, with the record last.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use stockade_core::{BackendError, SandboxId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::entry::{Entry, Turn};
use super::error::chain;
use super::inner::Inner;
use super::start;
use crate::state::record::Phase;

/// How long a delete waits for everything to be gone. A sandbox that has nothing to do is gone within
/// milliseconds; one that takes its grace goes in the background.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a delete waits for others that change the sandbox.
const TURN: Duration = Duration::from_secs(12);
/// How long killed processes may take to be gone from their groups.
const GROUPS: Duration = Duration::from_secs(5);

pub(crate) async fn delete(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), BackendError> {
    let Some(entry) = inner.entry(id) else { return Ok(()) };
    let Ok(turn) = timeout(TURN, entry.turn()).await else {
        return Err(super::error::timed_out("waiting for others that change the sandbox", TURN));
    };
    if entry.seen().gone {
        return Ok(());
    }
    mark(inner, &entry, &turn)?;
    let done = in_background(inner, &entry, turn);
    match timeout(ANSWER, done).await {
        Ok(Ok(Err(failures))) => Err(BackendError::PartialCleanup { failures }),
        _ => Ok(()),
    }
}

/// Writes down that it is on its way out: from now on no answer shows it.
pub(crate) fn mark(inner: &Inner, entry: &Entry, turn: &Turn) -> Result<(), BackendError> {
    if entry.phase() == Phase::Deleting {
        return Ok(());
    }
    entry.write_deleting(turn, &inner.state, &inner.settings.node_host)
}

/// Takes it away, whoever waits for it.
pub(crate) fn in_background(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: Turn,
) -> oneshot::Receiver<Result<(), String>> {
    let (sender, receiver) = oneshot::channel();
    let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
    tokio::spawn(async move {
        let result = remove(&inner, &entry, &turn).await;
        if let Err(failures) = &result {
            tracing::error!(sandbox_id = %entry.id, failures, "something of a sandbox is left; tried again");
        }
        drop(turn);
        // Whoever asked may have its answer already.
        let _ = sender.send(result);
    });
    receiver
}

/// Takes it away. What cannot be removed now keeps its record, and is tried again.
pub(crate) async fn remove(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn) -> Result<(), String> {
    let mut failures = Vec::new();
    if let Err(error) = inner.relays.remove(&entry.id).await {
        failures.push(format!("address: {}", chain(&error)));
    }
    end_processes(inner, entry).await;
    let name = entry.with(|record| record.incarnation.clone());
    if let Err(error) = inner.cgroup(move |cgroups| cgroups.discard(&name, GROUPS)).await {
        failures.push(format!("processes: {}", chain(&error)));
    }
    // Its main process may be in no group.
    start::kill(&entry.open());
    if let Err(error) = inner.network.release(entry.place().slot).await {
        failures.push(format!("network: {}", chain(&error)));
    }
    if !failures.is_empty() {
        return Err(failures.join(", "));
    }
    inner.state.discard(&entry.id).map_err(|error| format!("files: {}", chain(&error)))?;
    inner.trash.collect();
    entry.set_open(turn, |open| *open = super::entry::Open { start: open.start + 1, ..Default::default() });
    inner.forget(entry);
    inner.standbys.look_again();
    Ok(())
}

/// Asks its main process to end, which ends the commands first; after the grace nobody is asked.
async fn end_processes(inner: &Inner, entry: &Entry) {
    let open = entry.open();
    let Some(pidfd) = &open.pidfd else { return };
    let (paused, grace) = entry.with(|record| (record.life.paused, record.launch.grace));
    if !paused {
        start::signal(&open, Signal::TERM);
        if timeout(grace, start::ended(pidfd)).await.is_err() {
            tracing::info!(sandbox_id = %entry.id, seconds = grace.as_secs(), "it did not end in time; killing it");
        }
    }
    start::kill(&open);
    if paused && let Some(cgroup) = &open.cgroup {
        // What is stopped does not end before it may run.
        let _ = inner.in_cgroup(cgroup, crate::cgroup::SandboxCgroup::kill).await;
    }
    if timeout(GROUPS, start::ended(pidfd)).await.is_err() {
        tracing::error!(sandbox_id = %entry.id, "its main process does not end although it was killed");
    }
}
