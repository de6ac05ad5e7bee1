//! Making a sandbox, once, whoever asks and however often.
//!
//! The first who asks for an id puts it in under the lock of all sandboxes and holds its turn until it is
//! made; the others wait for the turn and find what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stockade_core::{BackendError, Sandbox, SandboxSpec};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::entry::{Entry, Turn};
use super::error::StartFailure;
use super::inner::{Inner, Slot};
use super::places::{self, NoPlace, Place};
use super::request::Asked;
use super::sameness::{check_extensions, check_same};
use super::standby::Ready;
use super::{mounts, remove, start, unlimited};
use crate::launch::spec::UserMap;
use crate::relay::RelayError;
use crate::settings::PortRange;
use crate::state::record::{Life, Phase, Record};

/// The longest a create is worth waiting for: callers give up at 30 s.
const CREATE_LIMIT: Duration = Duration::from_secs(25);
/// How long a create waits for the agent to listen. Beyond it, the answer says that it is not ready.
const READY_WAIT: Duration = Duration::from_secs(10);
/// How many ports are tried that others may have: another server with the same range may have hundreds of sandboxes.
const PORT_ATTEMPTS: usize = 500;

pub(crate) async fn create(
    inner: &Arc<Inner>,
    spec: &SandboxSpec,
    deadline: Instant,
) -> Result<Arc<Sandbox>, BackendError> {
    let started = Instant::now();
    let deadline = deadline.min(started + CREATE_LIMIT);
    let asked = Asked::of(spec, &inner.settings, &inner.network)?;
    unlimited::refuse(&spec.resources, &inner.facts.cgroups, inner.settings.missing_limits)?;
    loop {
        let notes = match inner.entry(&spec.id) {
            Some(_) => Vec::new(),
            None => look_at_directories(inner, spec, &asked, deadline).await?,
        };
        let mut standby = None;
        match inner.insert(&spec.id, || new_entry(inner, spec, &asked, notes, &mut standby))? {
            Slot::New(entry, turn) => {
                let result = make(inner, &entry, turn, standby, deadline).await;
                inner.standbys.look_again();
                inner.metrics.created(result.is_ok(), started.elapsed());
                return result;
            }
            Slot::Present(entry) => {
                if let Some(sandbox) = find(inner, &entry, spec, &asked, deadline).await? {
                    return Ok(sandbox);
                }
            }
        }
    }
}

/// The sandbox that is there, when it is the same; `None` when it is not there any more.
async fn find(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    spec: &SandboxSpec,
    asked: &Asked,
    deadline: Instant,
) -> Result<Option<Arc<Sandbox>>, BackendError> {
    let started = Instant::now();
    if entry.phase() == Phase::Deleting {
        return wait_until_gone(entry, started, deadline).await.map(|()| None);
    }
    let Ok(turn) = timeout_at(deadline, entry.turn()).await else {
        let what = "waiting for another create of the same sandbox";
        return Err(super::error::timed_out(what, CREATE_LIMIT));
    };
    if entry.seen().gone {
        return Ok(None);
    }
    let contract = inner.settings.storage.contract;
    match entry.phase() {
        Phase::Making | Phase::Deleting => {
            drop(turn);
            wait_until_gone(entry, started, deadline).await.map(|()| None)
        }
        Phase::Live => {
            entry.with(|record| check_same(record, spec, asked, contract))?;
            entry.with(|record| check_extensions(record, spec, asked))?;
            start::on_demand(inner, entry, &turn).await?;
            Ok(Some(entry.seen().sandbox))
        }
        Phase::Failed => {
            entry.with(|record| check_same(record, spec, asked, contract))?;
            if entry.with(|record| record.life.only_reads().is_some()) {
                // Its files are somebody's, and nobody asked for their end.
                return Ok(Some(entry.seen().sandbox));
            }
            // It never runs again; whoever creates the sandbox wants one that does, and with what is asked for now.
            tracing::info!(sandbox_id = %entry.id, "replacing a sandbox that failed");
            remove::mark(inner, entry, &turn)?;
            let _ = timeout_at(deadline, remove::in_background(inner, entry, turn)).await;
            wait_until_gone(entry, started, deadline).await.map(|()| None)
        }
    }
}

async fn wait_until_gone(entry: &Entry, started: Instant, deadline: Instant) -> Result<(), BackendError> {
    let mut seen = entry.subscribe();
    let gone = seen.wait_for(|seen| seen.gone);
    match timeout_at(deadline, gone).await {
        Ok(_) => Ok(()),
        Err(_) => Err(BackendError::Terminating { id: entry.id.clone(), waited: started.elapsed() }),
    }
}

/// Whether all directories are there that must be; and remarks on those that need not. In a thread of its own: a
/// network file system that does not answer must not keep others waiting.
async fn look_at_directories(
    inner: &Inner,
    spec: &SandboxSpec,
    asked: &Asked,
    deadline: Instant,
) -> Result<Vec<String>, BackendError> {
    let binds = asked.binds.clone();
    let look = tokio::task::spawn_blocking(move || mounts::look(&binds));
    let late = || super::error::timed_out("looking at the directories to mount", CREATE_LIMIT);
    let looked = timeout_at(deadline, look).await.map_err(|_| late())?;
    let mut notes = looked.map_err(|_| late())??;
    let left_to_us = spec.network.mode.is_none() && inner.settings.network.is_none();
    if let Some(why) = inner.network.closed().filter(|_| left_to_us) {
        notes.push(format!("the network is isolated: {why}"));
    }
    notes.extend(unlimited::note(&inner.facts.cgroups));
    Ok(notes)
}

/// A new sandbox in memory, with a place; that of one that was prepared ahead where there is one.
fn new_entry(
    inner: &Inner,
    spec: &SandboxSpec,
    asked: &Asked,
    notes: Vec<String>,
    standby: &mut Option<Ready>,
) -> Result<(Arc<Entry>, Turn), BackendError> {
    let place = inner.places.lock().take(|| {
        *standby = inner.standbys.take(&asked.network);
        inner.metrics.standby(inner.standbys.count());
        standby.as_ref().map(|ready| ready.slot)
    });
    let Place { port, slot } = place.map_err(|missing| no_place(inner, missing))?;
    let users = if inner.facts.privileged { places::users(slot) } else { UserMap::Single };
    let incarnation = standby.as_ref().map(|ready| ready.incarnation.clone());
    let record = Record {
        id: spec.id.clone(),
        incarnation: incarnation.unwrap_or_else(|| Uuid::new_v4().to_string()),
        created_at: Timestamp::now(),
        identity: spec.identity(),
        contract: inner.settings.storage.contract,
        signature: asked.signature.clone(),
        port,
        slot,
        launch: asked.launch(spec, &inner.settings, inner.state.files(&spec.id), users),
        limits: asked.limits,
        network: asked.network.clone(),
        notes,
        life: Life {
            phase: Phase::Making,
            process: None,
            paused: false,
            restarts: Vec::new(),
            last_exit: None,
            failure: None,
        },
    };
    let entry = Entry::new(record, &inner.settings.node_host);
    match entry.try_turn() {
        Some(turn) => Ok((entry, turn)),
        None => unreachable!("nobody else knows of a sandbox that was just made"),
    }
}

fn no_place(inner: &Inner, missing: NoPlace) -> BackendError {
    let message = match missing {
        NoPlace::Port => format!(
            "every port of {} is a sandbox's (SANDBOX_PORT_RANGE); delete some sandboxes, or widen the range",
            inner.settings.ports
        ),
        NoPlace::Users => "there are no users of this machine left for another sandbox: /etc/subuid and /etc/subgid give \
                           most of those from 1879048192 to 2147352575 to others; delete some sandboxes, or change that"
            .to_owned(),
    };
    BackendError::QuotaExceeded { message }
}

/// Makes it, or leaves nothing of it.
async fn make(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: Turn,
    standby: Option<Ready>,
    deadline: Instant,
) -> Result<Arc<Sandbox>, BackendError> {
    let result = try_make(inner, entry, &turn, standby, deadline).await;
    if let Err(error) = result {
        tracing::warn!(sandbox_id = %entry.id, %error, "it cannot be made; removing what was made of it");
        if remove::mark(inner, entry, &turn).is_err() || remove::remove(inner, entry, &turn).await.is_err() {
            // The record says what it is; it is tried again.
            tracing::error!(sandbox_id = %entry.id, "something of it is left");
        }
        return Err(error);
    }
    tracing::info!(sandbox_id = %entry.id, url = entry.seen().sandbox.url, "created");
    Ok(entry.seen().sandbox)
}

async fn try_make(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    standby: Option<Ready>,
    deadline: Instant,
) -> Result<(), BackendError> {
    let permit = inner.turn_to_start(deadline).await?;
    inner.write(entry, turn, |_| ())?;
    let starting = start::start(inner, entry, turn, standby, listen(inner, entry, turn));
    let started = timeout_at(deadline, starting).await;
    let started = started.map_err(|_| super::error::timed_out("starting the sandbox", CREATE_LIMIT))?;
    let mut ready = started.map_err(|failure| failure.into_backend(&entry.id))?;
    drop(permit);
    let start = entry.open().start;
    let wait = deadline.min(Instant::now() + READY_WAIT);
    let Ok(listens) = start::listens(&mut ready, wait).await else {
        let last_words = inner.log(&entry.id).last_words();
        return Err(StartFailure::Ended { last_words }.into_backend(&entry.id));
    };
    entry.tell_of(turn, &inner.state, &inner.settings.node_host)?;
    entry.happened(false, "Created", "made, with its address");
    if listens {
        start::is_ready(inner, entry, start);
    } else {
        start::note_ready(inner, entry, ready);
    }
    Ok(())
}

/// Opens its port; another one when somebody else on this machine has it.
async fn listen(inner: &Inner, entry: &Entry, turn: &Turn) -> Result<(), BackendError> {
    let mut tried = BTreeSet::new();
    while tried.len() < PORT_ATTEMPTS {
        let port = entry.place().port;
        match inner.relays.listen(&entry.id, port).await {
            Ok(()) => return Ok(()),
            Err(RelayError::AddressInUse { .. }) => {
                tracing::debug!(sandbox_id = %entry.id, port, "somebody else has this port; trying the next");
                tried.insert(port);
                let Some(other) = inner.places.lock().another_port(port, &tried) else { break };
                inner.write(entry, turn, |record| record.port = other)?;
            }
            Err(error) => return Err(StartFailure::Relay(error).into_backend(&entry.id)),
        }
    }
    Err(BackendError::QuotaExceeded { message: ports_taken(inner.settings.ports, tried.len()) })
}

/// That no port was to be had, for as many as were tried.
fn ports_taken(range: PortRange, tried: usize) -> String {
    let (what, ours) = match tried {
        1 => ("a port".to_owned(), range.count() > 1),
        tried => (format!("{tried} ports"), range.count() > u32::try_from(tried).unwrap_or(u32::MAX)),
    };
    let others =
        if ours { "; those that are left are sandboxes' or were not tried" } else { ", which is all of it" };
    format!(
        "other programs have {what} of SANDBOX_PORT_RANGE ({range}){others}: end those programs, or choose another range \
         (`ss -ltnp` lists who listens)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_others_are_counted_as_they_are() {
        let said = |range: &str, tried| ports_taken(range.parse().unwrap(), tried);
        assert!(
            said("20000-20004", 5)
                .contains("have 5 ports of SANDBOX_PORT_RANGE (20000-20004), which is all of it")
        );
        assert!(
            said("20000-20004", 2)
                .contains("have 2 ports of SANDBOX_PORT_RANGE (20000-20004); those that are left")
        );
        assert!(
            said("20000-20000", 1).contains("have a port of SANDBOX_PORT_RANGE (20000-20000), which is all")
        );
        assert!(said("20000-29999", PORT_ATTEMPTS).contains("have 500 ports"));
    }
}
