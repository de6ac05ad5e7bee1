//! The places of connections, and which of them is given to somebody else when all are taken.
//!
//! Whoever reaches the port can open connections and say nothing. So a new connection takes the place of one that
//! has nothing to lose: the oldest of those that have no request (which never began one, are slow to say it, or
//! had their answer), else the oldest of those whose request has not come whole. A request that is whole is never
//! given up; when all places have one, the new connection is told so.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has no request.
    Waiting,
    /// It has one whose body has not come whole.
    Receiving,
    /// It has one, and not its whole answer.
    Answering,
    /// It has lost its place.
    Evicted,
}

/// All places of one server.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Mutex<BTreeMap<u64, Arc<Place>>>,
    /// Counts connections and their changes, so that the oldest is the least.
    clock: AtomicU64,
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    /// The phase, and since when.
    state: Mutex<(Phase, u64)>,
    evicted: Notify,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default(), clock: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for a new connection; `None` when all have a whole request.
    pub(crate) fn take(&self) -> Option<Arc<Place>> {
        let mut taken = self.taken.lock();
        if taken.len() >= self.max {
            // A connection may have got its request since it was looked at; then another is looked for.
            while !self.give_up_one(&mut taken)? {}
        }
        let id = self.now();
        let state = Mutex::new((Phase::Waiting, id));
        let place = Arc::new(Place { id, state, evicted: Notify::new() });
        taken.insert(id, Arc::clone(&place));
        Some(place)
    }

    /// Evicts the connection that has the least to lose, and says whether that succeeded; `None` when there is none.
    fn give_up_one(&self, taken: &mut BTreeMap<u64, Arc<Place>>) -> Option<bool> {
        let seen = taken.values().map(|place| (*place.state.lock(), place.id));
        let ((phase, since), id) = seen.min().filter(|((phase, _), _)| *phase < Phase::Answering)?;
        let place = taken.get(&id)?;
        let mut state = place.state.lock();
        if *state != (phase, since) {
            return Some(false);
        }
        *state = (Phase::Evicted, since);
        drop(state);
        place.evicted.notify_one();
        taken.remove(&id);
        Some(true)
    }

    /// The connection is over.
    pub(crate) fn leave(&self, place: &Place) {
        self.taken.lock().remove(&place.id);
    }

    /// A request has come; `false` when the place is lost.
    pub(crate) fn begin(self: &Arc<Self>, place: &Arc<Place>, whole: bool) -> Option<Turn> {
        let phase = if whole { Phase::Answering } else { Phase::Receiving };
        self.enter(place, phase).then(|| Turn { places: Arc::clone(self), place: Arc::clone(place) })
    }

    fn enter(&self, place: &Place, phase: Phase) -> bool {
        let mut state = place.state.lock();
        if state.0 == Phase::Evicted {
            return false;
        }
        *state = (phase, self.now());
        true
    }
}

impl Place {
    /// Ends when the place is lost.
    pub(crate) async fn lost(&self) {
        self.evicted.notified().await;
    }
}

/// The time from a request to the end of its answer.
#[derive(Debug)]
pub(crate) struct Turn {
    places: Arc<Places>,
    place: Arc<Place>,
}

impl Turn {
    /// The request's body, which tells when it has come whole.
    pub(crate) fn watched(&self, body: Body) -> Body {
        let (places, place) = (Arc::clone(&self.places), Arc::clone(&self.place));
        Body::new(Received { body, places, place, is_told: false })
    }

    /// The answer's body, with which the turn ends.
    pub(crate) fn until_the_end_of(self, body: Body) -> Body {
        Body::new(Answered { body, _turn: self })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.places.enter(&self.place, Phase::Waiting);
    }
}

struct Received {
    body: Body,
    places: Arc<Places>,
    place: Arc<Place>,
    is_told: bool,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !self.is_told && (frame.is_none() || self.body.is_end_stream()) {
            self.is_told = true;
            self.places.enter(&self.place, Phase::Answering);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Answered {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_lost(place: &Place) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, place.lost()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_without_a_request_gives_way_then_the_oldest_that_is_not_whole() {
        let places = Places::new(3);
        let [answering, receiving, idle] = [(); 3].map(|()| places.take().unwrap());
        let _answer = places.begin(&answering, true).unwrap();
        let _body = places.begin(&receiving, false).unwrap();
        let second = places.take().unwrap();
        assert!(is_lost(&idle).await && !is_lost(&receiving).await);
        let _busy = places.begin(&second, true).unwrap();
        let third = places.take().unwrap();
        assert!(is_lost(&receiving).await && !is_lost(&answering).await);
        let _busy = places.begin(&third, true).unwrap();
        assert!(places.take().is_none(), "whole requests are never given up");
    }

    #[tokio::test]
    async fn an_answer_that_is_sent_makes_a_connection_the_youngest_that_waits() {
        let places = Places::new(2);
        let [first, second] = [(); 2].map(|()| places.take().unwrap());
        drop(places.begin(&first, true).unwrap());
        places.take().unwrap();
        assert!(is_lost(&second).await && !is_lost(&first).await);
    }

    #[tokio::test]
    async fn who_has_lost_a_place_begins_nothing_and_who_leaves_makes_room() {
        let places = Places::new(1);
        let first = places.take().unwrap();
        let second = places.take().unwrap();
        assert!(places.begin(&first, true).is_none());
        places.leave(&first);
        let busy = places.begin(&second, true).unwrap();
        assert!(places.take().is_none(), "the one that was evicted had left already");
        drop(busy);
        places.leave(&second);
        assert!(places.take().is_some());
    }
}
