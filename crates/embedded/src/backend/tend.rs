//! What is looked after all the time: logs that grow, files that grow, removals that failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::entry::Entry;
use super::inner::Inner;
use super::measure::{LOOK, Measuring};
use super::{relays, remove};
use crate::state::record::Phase;

/// How often logs are looked at.
const LOGS: Duration = Duration::from_secs(1);
/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Never ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut logs_at, mut retry_at) = (Instant::now(), Instant::now());
    let mut measuring = Measuring::default();
    loop {
        ticks.tick().await;
        let entries = inner.entries();
        if Instant::now() >= logs_at {
            logs_at = Instant::now() + LOGS;
            for entry in &entries {
                if let Err(error) = inner.log(&entry.id).cut() {
                    tracing::warn!(sandbox_id = %entry.id, %error, "its log cannot be cut");
                }
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
