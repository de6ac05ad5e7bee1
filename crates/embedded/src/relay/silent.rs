//! Connections that were opened and have not said anything. When there are too many connections, the oldest of them
//! gives way to a new one: whoever only opens connections must not keep out those who have a request. One that has said
//! something is never closed for another: what the relay passes on may be a stream on which nothing happens for long.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::limits::Taken;
use super::port::Entered;

/// A connection's place among those there may be.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) entered: Entered,
    pub(super) taken: Taken,
}

/// Those of one sandbox, from the oldest to the newest.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    all: BTreeMap<u64, (Admission, Arc<Notify>)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    /// Told when it has to give way.
    pub(super) gives_way: Arc<Notify>,
}

impl Silent {
    /// Keeps the admission of a connection that was just opened.
    pub(super) fn keep(&self, admission: Admission) -> Ticket {
        let gives_way = Arc::new(Notify::new());
        let mut waiting = self.0.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.all.insert(number, (admission, Arc::clone(&gives_way)));
        Ticket { number, gives_way }
    }

    /// The admission of one that says something, or has ended; `None` when it was given to another.
    pub(super) fn take(&self, ticket: &Ticket) -> Option<Admission> {
        self.0.lock().all.remove(&ticket.number).map(|(admission, _)| admission)
    }

    /// The admission of the oldest, which is told that it has to give way.
    pub(super) fn take_oldest(&self) -> Option<Admission> {
        let (_, (admission, gives_way)) = self.0.lock().all.pop_first()?;
        gives_way.notify_one();
        Some(admission)
    }
}
