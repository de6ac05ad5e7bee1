//! Warning events: some reasons (a missing host directory, a broken volume) are told nowhere else.
//!
//! This watch is a convenience. Without the right to watch events everything else works; the reason is then
//! missing from answers.

use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Resource;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::call_error::CallError;
use crate::cluster::CALL_LIMIT;
use crate::diagnosis::Diagnosis;
use crate::manifest::id_of_pod;
use crate::watch::Feed;

const FIELDS: &str = "type=Warning,involvedObject.kind=Pod";
/// Nothing depends on how fresh warnings are, so that this watch may last; most API servers end one after
/// five to ten minutes.
const WATCH_SECONDS: u32 = 290;
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// How long to wait before asking again for a right that is missing.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(300);

/// Feeds warnings into the index, for ever.
pub(crate) async fn follow(feed: Feed) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut told = false;
    loop {
        match watch_once(&feed).await {
            Ok(()) => backoff.reset(),
            Err(CallError::Forbidden(message)) => {
                if !told {
                    warn!(
                        said = message,
                        "no right to watch events: answers lack reasons such as FailedMount"
                    );
                    told = true;
                }
                tokio::time::sleep(FORBIDDEN_WAIT).await;
            }
            Err(error) => debug!(%error, "watch of events broke"),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn watch_once(feed: &Feed) -> Result<(), CallError> {
    let api = feed.cluster.api::<Event>();
    let listing = ListParams::default().fields(FIELDS).limit(500);
    let list =
        timeout(CALL_LIMIT, api.list(&listing)).await.map_err(|_| CallError::TimedOut(CALL_LIMIT))??;
    for event in &list.items {
        take(feed, event);
    }
    let revision = list.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(FIELDS).timeout(WATCH_SECONDS);
    let path = Event::url_path(&(), Some(feed.cluster.namespace()));
    let request = Request::new(path).watch(&params, &revision).map_err(kube::Error::BuildRequest)?;
    let opened = timeout(CALL_LIMIT, feed.cluster.client().request_events::<Event>(request)).await;
    let events = opened.map_err(|_| CallError::TimedOut(CALL_LIMIT))??;
    pin_mut!(events);
    while let Some(event) =
        timeout(SILENCE, events.try_next()).await.map_err(|_| CallError::TimedOut(SILENCE))??
    {
        match event {
            WatchEvent::Added(event) | WatchEvent::Modified(event) => take(feed, &event),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
        }
    }
    Ok(())
}

fn take(feed: &Feed, event: &Event) {
    let about = &event.involved_object;
    let Some(id) = about.name.as_deref().and_then(id_of_pod) else { return };
    let (Some(uid), Some(reason)) = (about.uid.as_deref(), event.reason.as_deref()) else { return };
    // A probe that fails while the agent starts is what starting looks like, not what is wrong. What the
    // scheduler could not do, the Pod says itself as long as it is true.
    if matches!(reason, "Unhealthy" | "FailedScheduling") {
        return;
    }
    let detail = event.message.as_deref().unwrap_or_default();
    feed.index.warn(&id, uid, Diagnosis::of_warning(reason, detail), Timestamp::now());
}
