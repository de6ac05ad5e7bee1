//! What a server does about the sandboxes that an earlier one left: adopt, complete, or remove.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stockade_core::SandboxId;
use tokio::time::Instant;

use super::entry::{Entry, Turn};
use super::error::{StartError, chain};
use super::inner::Inner;
use super::plan::{self, Action, Main};
use super::{end, pause, process, relays, remove, standby, start};
use crate::cgroup::CgroupLayout;
use crate::relay::Listed;
use crate::state::Stored;
use crate::state::record::{Failure, Phase, Record};

/// How long what belongs to nobody may take to be gone.
const SWEEP: Duration = Duration::from_secs(5);
/// How long an adopted agent may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks at everything that is there.
///
/// # Errors
/// When a record was written by a newer version, or the state directory cannot be read.
pub(crate) async fn adopt_all(inner: &Arc<Inner>) -> Result<(), StartError> {
    let mut found = Vec::new();
    let mut half = Vec::new();
    for stored in inner.state.read()? {
        match stored {
            Stored::Sandbox(record) => found.push(inner.found(*record)),
            Stored::Half(id) => half.push(id),
        }
    }
    let listed = inner.relays.current().list().await.map_err(StartError::Relay)?;
    let standbys = standby::sweep(inner).await;
    sweep(inner, &half, &listed).await;
    for entry in &found {
        adopt(inner, entry).await;
    }
    let slots: BTreeSet<u32> = inner.places.lock().slots().into_iter().collect();
    match inner.network.sweep(slots).await {
        // Networks that were prepared ahead, and that the kernel is still taking away, are not lost ones.
        Ok(count) => inner.metrics.swept(count.saturating_sub(standbys)),
        Err(error) => tracing::error!(error = chain(&error), "networks of nobody cannot be removed"),
    }
    inner.relays.serve_names(&inner.network).await;
    if !found.is_empty() {
        tracing::info!(sandboxes = inner.count(), "found the sandboxes of an earlier server");
    }
    Ok(())
}

/// Removes what has no record.
async fn sweep(inner: &Arc<Inner>, half: &[SandboxId], listed: &[Listed]) {
    let mut swept = half.len();
    for id in half {
        tracing::warn!(sandbox_id = %id, "removing files of a sandbox that was never made or is half removed");
        if let Err(error) = inner.state.discard(id) {
            tracing::error!(sandbox_id = %id, error = chain(&error), "its files cannot be removed");
        }
    }
    for port in listed {
        let Ok(id) = SandboxId::new(&port.id) else { continue };
        if inner.entry(&id).is_none() {
            swept += 1;
            tracing::warn!(sandbox_id = %id, address = %port.address, "closing a port of no sandbox");
            if let Err(error) = inner.relays.remove(&id).await {
                tracing::error!(sandbox_id = %id, error = chain(&error), "the port cannot be closed");
            }
        }
    }
    let incarnations =
        inner.entries().into_iter().map(|entry| entry.with(|record| record.incarnation.clone()));
    let known: BTreeSet<String> = incarnations.collect();
    for name in inner.cgroups.list() {
        if !known.contains(&name) {
            swept += 1;
            tracing::warn!(cgroup = name, "ending processes of no sandbox");
            if let Err(error) = inner.cgroup(move |cgroups| cgroups.discard(&name, SWEEP)).await {
                tracing::error!(error = chain(&error), "they cannot be ended");
            }
        }
    }
    if matches!(inner.facts.cgroups, CgroupLayout::None { .. }) {
        swept += end_strays(inner);
    }
    inner.metrics.swept(swept);
    inner.trash.collect();
}

/// Without groups, a sandbox whose server died before writing down its process is found by its log, which it
/// holds open from its start.
fn end_strays(inner: &Inner) -> usize {
    let sandboxes = inner.state.root().join("sandboxes");
    let mut ended = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(number) = Pid::from_raw(pid) else { continue };
        let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        let Ok(log) = fs::read_link(format!("/proc/{pid}/fd/1")) else { continue };
        let Ok(below) = log.strip_prefix(&sandboxes) else { continue };
        let id = below.iter().next().and_then(|id| id.to_str()).and_then(|id| SandboxId::new(id).ok());
        let written = id
            .and_then(|id| inner.entry(&id))
            .and_then(|entry| entry.with(|record| record.life.process.as_ref().map(|process| process.pid)));
        // The first process of a sandbox alone: the others end with it.
        let first = fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")));
        if first && written != Some(pid) {
            ended += 1;
            tracing::warn!(pid, "ending a process of no sandbox");
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
    ended
}

/// Does what the plan says about one sandbox.
async fn adopt(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let turn = entry.turn().await;
    let record = entry.record();
    let (main, pidfd) = process::find(record.life.process.as_ref(), &inner.boot_id);
    match (plan::plan(&record.life, main, inner.settings.restarts, Timestamp::now()), pidfd) {
        (Action::Adopt, Some(pidfd)) => running(inner, entry, turn, &record, pidfd).await,
        (Action::Remove, pidfd) => {
            tracing::info!(sandbox_id = %entry.id, phase = ?record.life.phase, "removing a sandbox that was half made or half removed");
            entry.set_open(&turn, |open| open.pidfd = pidfd.map(Arc::new));
            remove_left(inner, entry, turn);
        }
        (Action::StartOnDemand, _) => {
            inner.know(entry, |now| now.on_demand = true);
            if record.life.phase == Phase::Live {
                let message = "the machine was restarted; it starts with the next connection";
                entry.happened(false, "Stopped", message);
            }
            drop(turn);
            relays::restore(inner, entry).await;
        }
        (Action::StartAt(_) | Action::GiveUp(_), _) | (Action::Adopt, None) => {
            if main == Main::Ended && record.life.process.is_some() {
                entry.happened(true, "Ended", "its main process ended while no server was there");
            }
            let gone = inner.write(entry, &turn, |record| {
                record.life.process = None;
                record.life.paused = false;
            });
            if let Err(error) = gone {
                tracing::error!(sandbox_id = %entry.id, %error, "its end cannot be written down");
            }
            let message = "its main process ended while no server was there".to_owned();
            end::stopped(inner, entry, &turn, Failure { reason: "Restarting".to_owned(), message }).await;
            drop(turn);
            relays::restore(inner, entry).await;
            let turn = entry.turn().await;
            end::next(inner, entry, &turn).await;
        }
        (Action::Keep, _) => {
            drop(turn);
            relays::restore(inner, entry).await;
        }
    }
}

fn remove_left(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: Turn) {
    match remove::mark(inner, entry, &turn) {
        Ok(()) => drop(remove::in_background(inner, entry, turn)),
        Err(error) => tracing::error!(sandbox_id = %entry.id, %error, "it cannot be removed; tried again"),
    }
}

/// Takes over a sandbox whose processes run.
async fn running(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: Turn, record: &Record, pidfd: OwnedFd) {
    let Some(process) = &record.life.process else { return };
    let name = record.incarnation.clone();
    let cgroup = inner.cgroup(move |cgroups| cgroups.adopt(&name)).await.unwrap_or_else(|failure| {
        tracing::warn!(sandbox_id = %entry.id, error = chain(&failure), "its control group cannot be used");
        None
    });
    let netns = match crate::network::of_process(process.pid) {
        Ok(netns) if process::find(Some(process), &inner.boot_id).0 == Main::Runs => netns,
        other => {
            // It has just ended, or hides; either way it cannot be reached.
            let error = other.err().map(|error| error.to_string());
            tracing::warn!(sandbox_id = %entry.id, error, "its network cannot be found; ending it");
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            drop(turn);
            relays::restore(inner, entry).await;
            watch_only(inner, entry, pidfd).await;
            return;
        }
    };
    match netns.try_clone() {
        Ok(copy) => {
            if let Err(error) = inner.network.adopt(record.slot, &record.network, copy).await {
                tracing::error!(sandbox_id = %entry.id, error = chain(&error), "its network cannot be taken over");
            }
        }
        Err(error) => tracing::error!(sandbox_id = %entry.id, %error, "a descriptor cannot be copied"),
    }
    let pidfd = Arc::new(pidfd);
    let start = entry.set_open(&turn, |open| {
        open.start += 1;
        open.pidfd = Some(Arc::clone(&pidfd));
        open.netns = Some(Arc::new(netns));
        open.cgroup = cgroup.map(Arc::new);
        open.start
    });
    inner.know(entry, |now| now.runs = true);
    if record.life.paused != pause::is_frozen(inner, entry).await {
        // It was woken, or somebody died between stopping it and saying so.
        let written = inner.write(entry, &turn, |record| record.life.paused = !record.life.paused);
        if let Err(error) = written {
            tracing::error!(sandbox_id = %entry.id, %error, "whether it is paused cannot be written down");
        }
    }
    start::watch(inner, entry, start, &pidfd, None);
    let (pid, port) = (process.pid, record.launch.agent_port);
    drop(turn);
    relays::restore(inner, entry).await;
    if listens(pid, port) {
        inner.know(entry, |now| now.ready = true);
    } else {
        wait_until_listens(inner, entry, start, pid, port);
    }
}

/// Notices the end of one that was just killed.
async fn watch_only(inner: &Arc<Inner>, entry: &Arc<Entry>, pidfd: OwnedFd) {
    let turn = entry.turn().await;
    let pidfd = Arc::new(pidfd);
    let start = entry.set_open(&turn, |open| {
        open.start += 1;
        open.pidfd = Some(Arc::clone(&pidfd));
        open.start
    });
    start::watch(inner, entry, start, &pidfd, None);
}

/// The agent said that it listens to a server that is gone: now its network has to be looked at.
fn wait_until_listens(inner: &Arc<Inner>, entry: &Arc<Entry>, start: u64, pid: i32, port: u16) {
    let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
    tokio::spawn(async move {
        let deadline = Instant::now() + LISTEN_LIMIT;
        while Instant::now() < deadline && entry.open().start == start {
            if listens(pid, port) {
                start::is_ready(&inner, &entry, start);
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
}

/// Whether something listens on the port in the network of the process.
fn listens(pid: i32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let local = fields.next().is_some_and(|local| local.ends_with(&wanted));
            local && fields.nth(1) == Some(LISTEN)
        })
    })
}
