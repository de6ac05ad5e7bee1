//! What is looked after all the time: logs that grow, files that grow, removals that failed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stockade_core::SandboxId;
use stockade_core::resources::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::entry::{Entry, Turn};
use super::inner::Inner;
use super::{end, relays, remove, start};
use crate::launch::spec::WritableLayer;
use crate::state::record::{Failure, Phase};
use crate::state::usage::{self, Room};

/// How often logs are looked at.
const LOGS: Duration = Duration::from_secs(1);
/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often the files of one sandbox are measured at least.
const MEASURE: Duration = Duration::from_secs(15);
/// How much may be written on the state directory's file system between two looks before all are measured.
const SUSPICIOUS: u64 = 256 << 20;

/// How many sandboxes are measured at once: one with a large tree does not keep the others waiting.
const AT_ONCE: usize = 4;

/// Never ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOGS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry_at = Instant::now();
    let mut measuring = Measuring::default();
    loop {
        ticks.tick().await;
        let entries = inner.entries();
        for entry in &entries {
            if let Err(error) = inner.log(&entry.id).cut() {
                tracing::warn!(sandbox_id = %entry.id, %error, "its log cannot be cut");
            }
        }
        if Instant::now() >= retry_at {
            retry_at = Instant::now() + RETRY;
            for entry in &entries {
                retry(&inner, entry).await;
            }
        }
        measuring.look(&inner, &entries);
    }
}

/// What failed before, or whose maker was dropped, is tried again.
async fn retry(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let lost = entry.now().trouble.is_some_and(|trouble| trouble.reason == relays::ADDRESS_LOST);
    if lost {
        relays::restore(inner, entry).await;
        return;
    }
    if entry.is_unsaved()
        && let Some(turn) = entry.try_turn()
        && inner.write(entry, &turn, |_| {}).is_ok()
    {
        tracing::info!(sandbox_id = %entry.id, "its record is written down after all");
    }
    if !matches!(entry.phase(), Phase::Making | Phase::Deleting) {
        return;
    }
    // Nobody has its turn and it is neither made nor gone: nobody is at it any more.
    let Some(turn) = entry.try_turn() else { return };
    if !entry.seen().gone && remove::mark(inner, entry, &turn).is_ok() {
        drop(remove::in_background(inner, entry, turn));
    }
}

/// When which sandbox was measured, who is being measured, and how full the file system was.
#[derive(Debug, Default)]
struct Measuring {
    at: HashMap<SandboxId, Instant>,
    now: HashSet<SandboxId>,
    done: JoinSet<SandboxId>,
    turns: Turns,
    used: u64,
}

impl Measuring {
    /// Has the files of sandboxes measured, those whose turn it is, or all when much was written lately. Waits for
    /// none of it.
    fn look(&mut self, inner: &Arc<Inner>, entries: &[Arc<Entry>]) {
        while let Some(done) = self.done.try_join_next() {
            match done {
                Ok(id) => drop(self.now.remove(&id)),
                // Whose it was is not told; at worst one more is measured twice.
                Err(_) if self.done.is_empty() => self.now.clear(),
                Err(_) => {}
            }
        }
        let sizes = entries.iter().filter_map(|entry| entry.now().disk_used);
        inner.metrics.disk_used(sizes.fold(0, u64::saturating_add));
        let used = usage::of_file_system(inner.state.root()).unwrap_or(self.used);
        let suspicious = used > self.used.saturating_add(SUSPICIOUS);
        self.used = used;
        self.at.retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        for entry in entries {
            let (on_disk, limit) = entry.with(|record| {
                let on_disk = matches!(record.launch.writable, WritableLayer::Disk(_));
                (on_disk && record.life.phase == Phase::Live, record.limits.storage)
            });
            let due = self.at.get(&entry.id).is_none_or(|at| at.elapsed() >= MEASURE);
            if !on_disk || !(due || suspicious) || !self.now.insert(entry.id.clone()) {
                continue;
            }
            self.at.insert(entry.id.clone(), Instant::now());
            let (inner, entry, turns) = (Arc::clone(inner), Arc::clone(entry), Arc::clone(&self.turns.0));
            self.done.spawn(async move {
                // Never closed.
                let _turn = turns.acquire().await;
                measure(&inner, &entry, limit).await;
                entry.id.clone()
            });
        }
    }
}

/// Turns to read trees.
#[derive(Debug)]
struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Measures the files of one sandbox: those that have names, and those that its processes hold without.
async fn measure(inner: &Arc<Inner>, entry: &Arc<Entry>, limit: u64) {
    let files = inner.state.files(&entry.id);
    let cgroup = entry.open().cgroup;
    let first = entry.with(|record| record.life.process.as_ref().map(|process| process.pid));
    let most = Room::within(limit);
    let measured = tokio::task::spawn_blocking(move || {
        let named = usage::of_tree(&files, &most)?;
        let mut processes = cgroup.map(|cgroup| cgroup.processes()).unwrap_or_default();
        if processes.is_empty() {
            processes = first.map(usage::descendants).unwrap_or_default();
        }
        let nameless = usage::of_nameless(&processes);
        let bytes = named.bytes.saturating_add(nameless.bytes);
        Ok::<_, std::io::Error>(Room { bytes, files: named.files.saturating_add(nameless.files) })
    });
    let measured = measured.await;
    if let Ok(Ok(taken)) = &measured
        && taken.files <= most.files
    {
        // Beyond that not all were looked at.
        inner.know(entry, |now| now.disk_used = Some(taken.bytes));
    }
    match measured {
        Ok(Ok(taken)) if taken.exceeds(&most) => {
            let turn = entry.turn().await;
            evict(inner, entry, &turn, &taken, &most).await;
        }
        Ok(Err(error)) => tracing::warn!(sandbox_id = %entry.id, %error, "its files cannot be measured"),
        _ => {}
    }
}

/// Stops a sandbox whose files have grown too large. They stay until it is deleted.
async fn evict(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, taken: &Room, most: &Room) {
    if entry.phase() != Phase::Live {
        return;
    }
    inner.metrics.evicted();
    let limit = Bytes(most.bytes);
    let what = if taken.bytes > most.bytes {
        format!("take more than its limit of {limit}")
    } else {
        format!("are more than the {} that its limit of {limit} allows", most.files)
    };
    let message = format!(
        "its files outside /mnt {what}; delete it and create it with a larger resources.ephemeral_storage.limit"
    );
    let failure = Failure { reason: "Evicted".to_owned(), message };
    end::give_up(inner, entry, turn, failure).await;
    let open = entry.open();
    start::kill(&open);
    if let Some(cgroup) = &open.cgroup
        && let Err(failure) = inner.in_cgroup(cgroup, crate::cgroup::SandboxCgroup::kill).await
    {
        tracing::error!(sandbox_id = %entry.id, error = super::error::chain(&failure), "it cannot be ended");
    }
    end::stopped(inner, entry, turn).await;
}
