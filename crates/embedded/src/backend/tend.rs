//! What is looked after all the time: logs that grow, files that grow, removals that failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stockade_core::SandboxId;
use stockade_core::resources::Bytes;
use tokio::time::{Instant, MissedTickBehavior};

use super::entry::{Entry, Turn};
use super::inner::Inner;
use super::{end, relays, remove, start};
use crate::launch::spec::WritableLayer;
use crate::state::record::{Failure, Phase};
use crate::state::usage;

/// How often logs are looked at.
const LOGS: Duration = Duration::from_secs(1);
/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often the files of one sandbox are measured at least.
const MEASURE: Duration = Duration::from_secs(15);
/// How much may be written on the state directory's file system between two looks before all are measured.
const SUSPICIOUS: u64 = 256 << 20;

/// Never ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOGS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry_at = Instant::now();
    let mut measured = Measured::default();
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
        measure(&inner, &entries, &mut measured).await;
    }
}

/// What failed before, or whose maker was dropped, is tried again.
async fn retry(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let lost = entry.now().trouble.is_some_and(|trouble| trouble.reason == relays::ADDRESS_LOST);
    if lost {
        relays::restore(inner, entry).await;
        return;
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

/// When which sandbox was measured, and how full the file system was.
#[derive(Debug, Default)]
struct Measured {
    at: HashMap<SandboxId, Instant>,
    used: u64,
}

/// Measures the files of sandboxes, those whose turn it is, or all when much was written lately.
async fn measure(inner: &Arc<Inner>, entries: &[Arc<Entry>], measured: &mut Measured) {
    let used = usage::of_file_system(inner.state.root()).unwrap_or(measured.used);
    let suspicious = used > measured.used.saturating_add(SUSPICIOUS);
    measured.used = used;
    measured.at.retain(|id, _| entries.iter().any(|entry| entry.id == *id));
    for entry in entries {
        let (on_disk, limit) = entry.with(|record| {
            let on_disk = matches!(record.launch.writable, WritableLayer::Disk(_));
            (on_disk && record.life.phase == Phase::Live, record.limits.storage)
        });
        let due = measured.at.get(&entry.id).is_none_or(|at| at.elapsed() >= MEASURE);
        if !on_disk || !(due || suspicious) {
            continue;
        }
        let files = inner.state.files(&entry.id);
        let size = tokio::task::spawn_blocking(move || usage::of_tree(&files, limit)).await;
        measured.at.insert(entry.id.clone(), Instant::now());
        // So many files that they were not all measured have no size.
        if let Ok(Ok(size)) = &size
            && *size != u64::MAX
        {
            inner.know(entry, |now| now.disk_used = Some(*size));
        }
        match size {
            Ok(Ok(size)) if size > limit => {
                let turn = entry.turn().await;
                evict(inner, entry, &turn, limit).await;
            }
            Ok(Err(error)) => tracing::warn!(sandbox_id = %entry.id, %error, "its files cannot be measured"),
            _ => {}
        }
    }
    let sizes = entries.iter().filter_map(|entry| entry.now().disk_used);
    inner.metrics.disk_used(sizes.fold(0, u64::saturating_add));
}

/// Stops a sandbox whose files have grown too large. They stay until it is deleted.
async fn evict(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, limit: u64) {
    if entry.phase() != Phase::Live {
        return;
    }
    inner.metrics.evicted();
    let message = format!(
        "its files outside /mnt take more than its limit of {}; delete it and create it with a larger \
         resources.ephemeral_storage.limit",
        Bytes(limit)
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
