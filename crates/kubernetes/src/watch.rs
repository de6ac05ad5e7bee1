//! Feeding the index: list once, then watch.
//!
//! # How freshness is proven
//! Each watch is asked for only a few seconds and then for the next few. While it runs, one object is listed,
//! consistently: that makes the API server catch up with its store and says which revision that is. Once we have
//! come that far, by an event or by the bookmark that an API server sends two seconds before a watch ends, it is
//! proven that nothing is missing of what was there when the watch began. (A bookmark alone would prove nothing:
//! it may come late, and from a server that is behind its store. And it is sent only when there is something to
//! say; without the list, a quiet namespace gets none. Seen on 1.34.) A watch that brings no proof is followed by
//! a complete list, and one that brings neither event nor end is a connection that is dead without knowing it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use jiff::Timestamp;
use kube::api::{WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Resource, ResourceExt};
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::call_error::{CallError, unreachable_text};
use crate::cluster::{CALL_LIMIT, Cluster};
use crate::health::Health;
use crate::index::{Index, Origin, Slot};
use crate::manifest::SELECTOR;
use crate::metrics::Metrics;
use crate::record::Revision;

/// How long one watch lasts. The bookmark comes two seconds before the end, give or take the second at which
/// the API server looks, and proves what was true when the watch began: at most 7.3 s later the next one does.
const WATCH_SECONDS: u32 = 4;
/// Silence beyond the end of the watch: the connection is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 2);
/// A watch that ends sooner than this without having brought anything is not asked for again at once.
const TOO_SHORT: Duration = Duration::from_millis(500);

#[derive(Debug, Error)]
enum WatchError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the watch was silent for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the watch ended at once")]
    TooShort,
}

/// Everything a watch feeds and tells.
#[derive(Clone)]
pub(crate) struct Feed {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) index: Arc<Index>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Metrics,
}

impl Feed {
    /// The watch of this kind has proven itself.
    fn works<R: Slot>(&self) {
        if self.health.works(R::KIND) {
            info!(resource = R::KIND.name(), sandboxes = self.index.len(), "watching");
        }
    }
}

/// Feeds the index with one kind of object, for ever.
pub(crate) async fn follow<R: Slot>(feed: Feed) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let name = R::KIND.name();
    loop {
        let Err(error) = session::<R>(&feed, &mut backoff).await;
        let problem = match error {
            WatchError::Call(CallError::Transport(cause)) => unreachable_text(feed.cluster.server(), &cause),
            other => other.to_string(),
        };
        if feed.health.broke(R::KIND, &problem) {
            warn!(resource = name, error = problem, "watch broke; reads go to the API server if it stays so");
        } else {
            debug!(resource = name, error = problem, "watch is still broken");
        }
        feed.metrics.watch_restarted(name);
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn session<R: Slot>(feed: &Feed, backoff: &mut Backoff) -> Result<Infallible, WatchError> {
    let mut revision = relist::<R>(feed).await?;
    loop {
        let started = Instant::now();
        let end = match watch_once::<R>(feed, revision.clone()).await {
            Ok(end) => end,
            Err(WatchError::Call(CallError::Expired)) => {
                tokio::time::sleep(TOO_SHORT.saturating_sub(started.elapsed())).await;
                revision = relist::<R>(feed).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !end.proven {
            if started.elapsed() < TOO_SHORT {
                return Err(WatchError::TooShort);
            }
            revision = relist::<R>(feed).await?;
            continue;
        }
        backoff.reset();
        revision = end.revision;
        // An API server, or a proxy before it, that ends watches at once is not asked in a busy loop.
        tokio::time::sleep(TOO_SHORT.saturating_sub(started.elapsed())).await;
    }
}

/// Replaces what the index holds of this kind.
async fn relist<R: Slot>(feed: &Feed) -> Result<String, WatchError> {
    let started = Instant::now();
    let (records, revision) = feed.cluster.list::<R>().await?;
    feed.index.replace(records, Revision::parse(&revision), started, Timestamp::now());
    Ok(revision)
}

struct End {
    /// How far the watch came.
    revision: String,
    /// Whether it was proven on the way that nothing is missing.
    proven: bool,
}

async fn watch_once<R: Slot>(feed: &Feed, mut revision: String) -> Result<End, WatchError> {
    let params = WatchParams::default().labels(SELECTOR).timeout(WATCH_SECONDS);
    let path = R::Object::url_path(&(), Some(feed.cluster.namespace()));
    let request = Request::new(path).watch(&params, &revision).map_err(kube::Error::BuildRequest);
    let request = request.map_err(CallError::from)?;
    let opened = timeout(CALL_LIMIT, feed.cluster.client().request_events::<R::Object>(request)).await;
    let events = opened.map_err(|_| CallError::TimedOut(CALL_LIMIT))?.map_err(CallError::from)?;
    let opened_at = Instant::now();
    let current = feed.cluster.current_revision::<R>();
    pin_mut!(events, current);
    let (mut proven, mut asking) = (false, true);
    let mut target: Option<Revision> = None;
    let mut silent_at = opened_at + SILENCE;
    loop {
        tokio::select! {
            next = timeout_at(silent_at, events.try_next()) => {
                let next = next.map_err(|_| WatchError::Silent(SILENCE))?;
                let Some(event) = next.map_err(CallError::from)? else {
                    return Ok(End { revision, proven });
                };
                silent_at = Instant::now() + SILENCE;
                if let Some(reached) = apply::<R>(&feed.index, event)? {
                    feed.index.reach(R::KIND, Revision::parse(&reached));
                    revision = reached;
                }
            }
            current = &mut current, if asking => {
                asking = false;
                // A failure here is the watch's to report, if it is more than a passing one.
                target = current.ok().map(|current| Revision::parse(&current));
            }
        }
        if !proven && target.is_some_and(|target| target <= Revision::parse(&revision)) {
            proven = true;
            feed.index.prove(R::KIND, Revision::parse(&revision), opened_at);
            feed.works::<R>();
        }
    }
}

/// Puts an event into the index; says how far it leads.
fn apply<R: Slot>(index: &Index, event: WatchEvent<R::Object>) -> Result<Option<String>, CallError> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            if let Some((id, record)) = R::of(&object) {
                index.put(&id, record, Origin::Watch, Timestamp::now());
            }
            Ok(object.resource_version())
        }
        WatchEvent::Deleted(object) => {
            if let Some((id, record)) = R::of(&object) {
                index.remove::<R>(&id, record.uid(), Timestamp::now());
            }
            Ok(object.resource_version())
        }
        WatchEvent::Bookmark(bookmark) => Ok(Some(bookmark.metadata.resource_version)),
        WatchEvent::Error(status) => Err(kube::Error::Api(status).into()),
    }
}
