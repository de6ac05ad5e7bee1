//! Starting the processes of a sandbox, and noticing what becomes of them.
//!
//! In this order, each step undone by [`super::remove`] or by the next start: log, groups, network, processes,
//! record, address; the port is opened meanwhile. A server that dies in between leaves what the next one finds by the
//! record, or by the group that has no record.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;
use stockade_core::BackendError;
use stockade_core::resources::{Bytes, Millicores};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::end;
use super::entry::{Entry, Open, Turn};
use super::error::StartFailure;
use super::inner::Inner;
use super::standby::Ready;
use crate::cgroup::{Limits, SandboxCgroup};
use crate::launch::spec::WritableLayer;
use crate::launch::{Exit, LaunchError, LaunchFds, Launched};
use crate::network::{Prepared, ResolvedPolicy};
use crate::state::record::{ProcessId, Record, StoredLimits};

/// How long the agent may take to listen. It takes milliseconds, unless the machine is busy with others.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a sandbox that is started on demand may take until it listens.
const DEMAND_LIMIT: Duration = Duration::from_secs(25);
/// How long the news of how a process ended may take longer than its end.
const EXIT_NEWS: Duration = Duration::from_secs(1);
/// How long what is left of an earlier start may take to end.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Starts it again, behind the port that it has. The record says so when this returns; whether its agent listens is
/// told later.
async fn restart(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
) -> Result<pipe::Receiver, StartFailure> {
    start(inner, entry, turn, None, std::future::ready(Ok(()))).await
}

/// Starts it, and meanwhile waits for its port to be opened.
pub(crate) async fn start(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    standby: Option<Ready>,
    listening: impl Future<Output = Result<(), BackendError>>,
) -> Result<pipe::Receiver, StartFailure> {
    let (running, listening) = tokio::join!(run(inner, entry, turn, standby), listening);
    let (netns, ready) = running?;
    listening.map_err(StartFailure::Address)?;
    inner.relays.attach(&entry.record(), &netns).await.map_err(StartFailure::Relay)?;
    pipe::Receiver::from_owned_fd(ready).map_err(StartFailure::Descriptor)
}

/// Its network, and what tells when its agent listens.
type Running = (Arc<OwnedFd>, OwnedFd);

/// Starts its processes.
async fn run(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    standby: Option<Ready>,
) -> Result<Running, StartFailure> {
    let record = entry.record();
    let log = OwnedFd::from(inner.log(&record.id).begin().map_err(StartFailure::Log)?);
    if let Some(ready) = standby
        && let Some(started) = from_standby(inner, entry, turn, &record, ready, &log).await?
    {
        return Ok(started);
    }
    let limits = limits(&record.limits);
    let name = record.incarnation.clone();
    let cgroup = inner.cgroup(move |cgroups| match cgroups.create(&name, &limits) {
        Err(_) => {
            // What an earlier start left, whose server died before it was written down.
            cgroups.discard(&name, LEFTOVERS)?;
            cgroups.create(&name, &limits)
        }
        made => made,
    });
    let network = network(inner, record.slot, &record.network);
    // Both to their end, also when one fails: what is left of a start is what its removal expects.
    let (cgroup, prepared) = tokio::join!(cgroup, network);
    let cgroup = Arc::new(cgroup?);
    let prepared = prepared?;
    serve_names(inner, &prepared).await;
    if let WritableLayer::Disk(_) = record.launch.writable {
        inner.state.make_files(&record.id).map_err(StartFailure::Files)?;
    }
    let mut spec = record.launch;
    spec.name_server = prepared.name_server;
    spec.only_reads = record.life.only_reads().map(|failure| failure.message.clone());
    spec.groups = cgroup.shown();
    let launched = inner.launch(&spec, || descriptors(&cgroup, &prepared, &log)).await?;
    began(inner, entry, turn, launched, cgroup, prepared)
}

/// Lets one that was prepared ahead become the sandbox; `None`: it cannot, and is gone.
async fn from_standby(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    record: &Record,
    mut ready: Ready,
    log: &OwnedFd,
) -> Result<Option<Running>, StartFailure> {
    let mut spec = record.launch.clone();
    if matches!(spec.writable, WritableLayer::Disk(_)) {
        // It was made under another name, which the directory is about to lose.
        spec.writable = ready.spec.writable.clone();
    }
    spec.groups = ready.spec.groups.clone();
    if !ready.process.is_for(&spec) {
        inner.state.discard_standby(&ready.incarnation).map_err(StartFailure::Standby)?;
        inner.trash.collect();
        return Ok(None);
    }
    inner.state.take_standby(&ready.incarnation, &record.id).map_err(StartFailure::Files)?;
    if ready.limits != record.limits {
        let limits = limits(&record.limits);
        inner.in_cgroup(&ready.cgroup, move |cgroup| cgroup.set_limits(&limits)).await?;
    }
    let prepared = match ready.network(&record.network) {
        Some(prepared) => prepared,
        None => network(inner, record.slot, &record.network).await?,
    };
    serve_names(inner, &prepared).await;
    spec.name_server = prepared.name_server;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(StartFailure::Descriptor);
    match ready.process.become_sandbox(&spec, copy(&prepared.netns)?, copy(log)?).await {
        Ok(launched) => {
            inner.metrics.standby_taken();
            began(inner, entry, turn, launched, ready.cgroup, prepared).map(Some)
        }
        Err(error @ LaunchError::Died) => {
            tracing::warn!(sandbox_id = %entry.id, %error, "what was prepared ahead is gone; starting anew");
            Ok(None)
        }
        Err(error) => Err(StartFailure::Launch(error)),
    }
}

/// The network of a slot, made anew.
pub(super) async fn network(
    inner: &Inner,
    slot: u32,
    policy: &ResolvedPolicy,
) -> Result<Prepared, StartFailure> {
    inner.network.release(slot).await.map_err(StartFailure::Network)?;
    inner.network.prepare(slot, policy).await.map_err(StartFailure::Network)
}

async fn serve_names(inner: &Inner, prepared: &Prepared) {
    if prepared.name_server.is_some() {
        inner.relays.serve_names(&inner.network).await;
    }
}

pub(super) fn limits(stored: &StoredLimits) -> Limits {
    Limits {
        cpu: Some(Millicores(stored.millicores)),
        memory: Some(Bytes(stored.memory)),
        processes: Some(stored.pids),
    }
}

fn descriptors(
    cgroup: &SandboxCgroup,
    prepared: &Prepared,
    log: &OwnedFd,
) -> Result<LaunchFds, StartFailure> {
    Ok(LaunchFds {
        netns: prepared.netns.try_clone().map_err(StartFailure::Descriptor)?,
        log: log.try_clone().map_err(StartFailure::Descriptor)?,
        join: cgroup.join_fds().map_err(StartFailure::Cgroup)?,
        commands: cgroup.command_fds().map_err(StartFailure::Cgroup)?,
    })
}

/// Its processes run: writes that down, and watches them.
fn began(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    launched: Launched,
    cgroup: Arc<SandboxCgroup>,
    prepared: Prepared,
) -> Result<Running, StartFailure> {
    let process =
        ProcessId { pid: launched.pid, start_time: launched.start_time, boot_id: inner.boot_id.clone() };
    let pidfd = Arc::new(launched.pidfd);
    let netns = Arc::new(prepared.netns);
    let start = entry.set_open(turn, |open| {
        let start = open.start + 1;
        *open = Open {
            start,
            pidfd: Some(Arc::clone(&pidfd)),
            netns: Some(Arc::clone(&netns)),
            cgroup: Some(cgroup),
        };
        start
    });
    let notes = prepared.messages.into_iter().chain(launched.messages);
    let written = inner.write_ahead(entry, turn, |record| {
        for note in notes {
            if !record.notes.contains(&note) {
                record.notes.push(note);
            }
        }
        record.life.process = Some(process);
        record.life.paused = false;
    });
    inner.know(entry, |now| {
        now.runs = true;
        now.ready = false;
        now.on_demand = false;
        now.trouble = None;
    });
    watch(inner, entry, start, &pidfd, Some(launched.exit));
    written.map_err(StartFailure::Record)?;
    Ok((netns, launched.ready))
}

/// Notices the end of its main process. `exit` tells how it ended, when its launcher lives to tell.
pub(crate) fn watch(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    start: u64,
    pidfd: &Arc<OwnedFd>,
    exit: Option<oneshot::Receiver<Exit>>,
) {
    let (inner, entry, pidfd) = (Arc::clone(inner), Arc::clone(entry), Arc::clone(pidfd));
    tokio::spawn(async move {
        if let Err(error) = ended(&pidfd).await {
            tracing::error!(sandbox_id = %entry.id, %error, "its main process cannot be watched");
            return;
        }
        let exit = match exit {
            Some(exit) => timeout(EXIT_NEWS, exit).await.ok().and_then(Result::ok),
            None => None,
        };
        end::ended(&inner, &entry, start, exit).await;
    });
}

/// Waits for the end of a process.
pub(crate) async fn ended(pidfd: &OwnedFd) -> std::io::Result<()> {
    // A copy, because several wait for one process, and a descriptor can be waited for once.
    let copy = pidfd.try_clone()?;
    // SAFETY: the copy is moved in, so that it stays open and the same for as long as it is waited for.
    #[allow(unsafe_code)]
    let pidfd = unsafe { AsyncFd::register_with_interest(copy, tokio::io::Interest::READABLE) };
    pidfd?.readable().await.map(drop)
}

/// Waits until the agent listens, or has ended; `false` when the deadline came first.
pub(crate) async fn listens(ready: &mut pipe::Receiver, deadline: Instant) -> Result<bool, ()> {
    let mut byte = [0];
    match timeout_at(deadline, ready.read(&mut byte)).await {
        Ok(Ok(1)) => Ok(true),
        Ok(_) => Err(()),
        Err(_) => Ok(false),
    }
}

/// Notes in the background that the agent listens.
pub(crate) fn note_ready(inner: &Arc<Inner>, entry: &Arc<Entry>, mut ready: pipe::Receiver) {
    let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
    let start = entry.open().start;
    tokio::spawn(async move {
        match listens(&mut ready, Instant::now() + READY_LIMIT).await {
            Ok(true) => is_ready(&inner, &entry, start),
            // Its end is noticed elsewhere.
            Err(()) => {}
            Ok(false) => {
                let message = format!("its agent does not listen after {} s", READY_LIMIT.as_secs());
                entry.happened(true, "NotReady", message);
                kill(&entry.open());
            }
        }
    });
}

/// The agent of this start listens.
pub(crate) fn is_ready(inner: &Inner, entry: &Entry, start: u64) {
    if entry.open().start == start {
        inner.know(entry, |now| now.ready = now.runs);
        entry.happened(false, "Started", "its agent listens");
    }
}

/// Ends its main process, and with it every process of the sandbox.
pub(crate) fn kill(open: &Open) {
    signal(open, Signal::KILL);
}

/// Sends a signal to its main process. One that has ended needs none.
pub(crate) fn signal(open: &Open, signal: Signal) {
    if let Some(pidfd) = &open.pidfd {
        let _ = rustix::process::pidfd_send_signal(pidfd, signal);
    }
}

/// Somebody connects to a sandbox that does not run: it is started, if that is what it waits for.
pub(crate) async fn demanded(inner: Arc<Inner>, entry: Arc<Entry>) {
    let Ok(turn) = timeout(DEMAND_LIMIT, entry.turn()).await else { return };
    if let Err(error) = on_demand(&inner, &entry, &turn).await {
        tracing::warn!(sandbox_id = %entry.id, %error, "it cannot be started for the one who connects");
    }
}

/// Starts a sandbox that waits for somebody who wants it. With the turn.
pub(crate) async fn on_demand(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
) -> Result<(), BackendError> {
    if !entry.with(|record| record.life.may_run()) || !entry.now().on_demand {
        return Ok(());
    }
    let _permit = inner.turn_to_start(Instant::now() + DEMAND_LIMIT).await?;
    entry.happened(false, "Waking", "started again with its files, because somebody wants it");
    match restart(inner, entry, turn).await {
        Ok(ready) => {
            note_ready(inner, entry, ready);
            Ok(())
        }
        Err(failure) => {
            end::start_failed(inner, entry, turn, &failure).await;
            Err(failure.into_backend(&entry.id))
        }
    }
}

/// Starts a sandbox again whose processes ended. With the turn.
pub(crate) async fn again(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn) {
    let now = Timestamp::now();
    let limit = inner.settings.restarts;
    let noted = inner.write(entry, turn, |record| {
        record.life.restarts = super::plan::recent(&record.life.restarts, limit, now);
        record.life.restarts.push(now);
    });
    if let Err(error) = noted {
        tracing::error!(sandbox_id = %entry.id, %error, "its restart cannot be written down; it stays as it is");
        return;
    }
    inner.metrics.restarted();
    let Ok(_permit) = inner.turn_to_start(Instant::now() + DEMAND_LIMIT).await else { return };
    match restart(inner, entry, turn).await {
        Ok(ready) => {
            tracing::info!(sandbox_id = %entry.id, "started again");
            note_ready(inner, entry, ready);
        }
        Err(failure) => end::start_failed(inner, entry, turn, &failure).await,
    }
}
