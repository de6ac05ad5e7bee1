//! Whether this server can reach the URLs it hands out.
//!
//! They are for the callers' network: a NodePort may be behind a firewall, a Service's name may be unknown here.
//! All URLs of one server lead through the same network, so what is learned of one holds for all.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

/// How long what was learned counts; then one create tries again.
const TRIED_AGAIN: Duration = Duration::from_secs(60);

/// When URLs may be tried again; at any time while nothing speaks against it.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<Option<Instant>>);

impl Reach {
    /// Whether a create should try its URL. Of those that come when the memo is old, one is told so.
    pub(super) fn may_be_tried(&self) -> bool {
        let mut out_of_reach_until = self.0.lock();
        let now = Instant::now();
        match *out_of_reach_until {
            Some(until) if now < until => false,
            Some(_) => {
                *out_of_reach_until = Some(now + TRIED_AGAIN);
                true
            }
            None => true,
        }
    }

    pub(super) fn was_reached(&self) {
        if self.0.lock().take().is_some() {
            info!(
                "URLs of sandboxes are reached from this server again; the answers of creates wait for them"
            );
        }
    }

    /// A sandbox was ready and its URL did not answer.
    pub(super) fn was_missed(&self, url: &str) {
        let before = self.0.lock().replace(Instant::now() + TRIED_AGAIN);
        if before.is_none() {
            info!(
                url,
                "a sandbox is ready and its URL does not answer here, which matters only if callers see the same; \
                 the answers of creates wait until Pods are ready instead"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_out_of_reach_is_tried_again_by_one_after_a_while() {
        let reach = Reach::default();
        assert!(reach.may_be_tried() && reach.may_be_tried());
        reach.was_missed("http://node:30000");
        assert!(!reach.may_be_tried());
        tokio::time::advance(TRIED_AGAIN).await;
        assert!(reach.may_be_tried());
        assert!(!reach.may_be_tried(), "one tries for all");
        reach.was_reached();
        assert!(reach.may_be_tried() && reach.may_be_tried());
    }
}
