//! Completing and removing half-made sandboxes: looks, plans (in `stockade_core::plan`), acts.
//!
//! Any number of replicas may do this at once: what is added has a name that only one of them gets, and what
//! is removed is removed by UID.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stockade_core::plan::{Action, plan};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::call_error::CallError;
use crate::create::add_service;
use crate::inner::Inner;
use crate::record::{PodRecord, Record, ServiceRecord};

const EVERY: Duration = Duration::from_secs(5);
/// Acts of one round; what is left comes in the next.
const AT_ONCE: usize = 50;

/// Looks every few seconds, for ever.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0;
    loop {
        ticks.tick().await;
        inner.index.forget_old(Timestamp::now());
        // On old knowledge nothing is done.
        if inner.is_fresh() {
            once(&inner, Timestamp::now(), round).await;
            round += 1;
        }
    }
}

/// One round. Each begins elsewhere, so that some that cannot be repaired do not starve the others.
async fn once(inner: &Inner, now: Timestamp, round: usize) {
    let mut actions = plan(&inner.index.halves(), now);
    if actions.is_empty() {
        return;
    }
    let first = round.wrapping_mul(AT_ONCE) % actions.len();
    actions.rotate_left(first);
    for action in actions.into_iter().take(AT_ONCE) {
        match act(inner, &action).await {
            Ok(true) => {
                inner.metrics.repaired();
                info!(?action, "repaired a half-made sandbox");
            }
            Ok(false) => {}
            Err(error) => warn!(?action, error, "could not repair a half-made sandbox"),
        }
    }
}

/// Says whether something was changed.
async fn act(inner: &Inner, action: &Action) -> Result<bool, String> {
    match action {
        Action::AddAddress { id, workload_uid } => {
            // A Service whose owner is gone is collected at once, but the truth is one read away.
            let live = inner.cluster.get_pod(id).await.map_err(|error| error.to_string())?;
            let live = live.as_ref().and_then(PodRecord::of).map(|(_, record)| record);
            if live.is_none_or(|pod| pod.terminating || *pod.uid != **workload_uid) {
                return Ok(false);
            }
            add_service(inner, id, workload_uid).await.map_err(|error| error.to_string())?;
            Ok(true)
        }
        Action::RemoveAddress { id, address_uid } => {
            let live = inner.cluster.get_pod(id).await.map_err(|error| error.to_string())?;
            if live.is_some() {
                return Ok(false);
            }
            match inner.cluster.delete_service(id, address_uid).await {
                Ok(()) => {
                    inner.index.remove::<ServiceRecord>(id, address_uid, Timestamp::now());
                    Ok(true)
                }
                Err(CallError::Conflict(_)) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}
