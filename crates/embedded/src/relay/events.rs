//! What the server has to hear. Nothing is lost while nobody listens, and nothing piles up: an event is kept
//! once.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::wire::Event;

/// Events that were not sent yet: at most one of each kind per sandbox.
#[derive(Debug, Default)]
pub(super) struct Events {
    pending: Mutex<BTreeSet<Event>>,
    raised: Notify,
}

impl Events {
    pub(super) fn raise(&self, event: Event) {
        if self.pending.lock().insert(event) {
            self.raised.notify_one();
        }
    }

    /// Forgets what is no longer true.
    pub(super) fn withdraw(&self, event: &Event) {
        self.pending.lock().remove(event);
    }

    pub(super) fn take(&self) -> BTreeSet<Event> {
        std::mem::take(&mut *self.pending.lock())
    }

    /// Until there is something to take.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }
}
