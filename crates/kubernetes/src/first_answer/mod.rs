//! The answer of a create waits until the sandbox answers.
//!
//! Callers ask a new URL at once, and sleep for a second when that fails. So the answer of a create waits, for a
//! bounded time, until the URL answers as a caller would reach it. Where this server cannot reach URLs, it waits
//! until the Pod is ready instead, and a [memo](Reach) keeps later creates from trying.
//!
//! Waiting comes after both writes and holds nothing that a write needs. All creates of one Pod share one wait,
//! which ends when nobody waits any more. Of what the sandbox answers, twelve bytes are compared and nothing is
//! parsed.

mod attempt;
mod reach;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use jiff::Timestamp;
use parking_lot::Mutex;
use stockade_core::{Sandbox, SandboxId};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use self::attempt::{Lookups, Place};
use self::reach::Reach;
use crate::index::Lookup;
use crate::inner::Inner;
use crate::record::PodRecord;

/// How many answers may wait at once: each holds one of the server's places for requests. Beyond that, answers
/// do not wait, as if the setting were zero.
const WAITING: usize = 256;
/// How long a URL may take to answer once its Pod is ready, before it counts as out of reach. kube-proxy writes
/// its rules once a second, later when it is busy, and had the Pod's address before the first probe.
const AFTER_READY: Duration = Duration::from_secs(2);
/// A sandbox that is ready and this old has answered before.
const SETTLED: Duration = Duration::from_secs(30);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The URL answers.
    Answered,
    /// The Pod is ready; the URL is out of this server's reach.
    Ready,
    /// Waiting does not help: the Pod has ended, or something is wrong with it.
    Stuck,
    /// Somebody deleted it.
    Gone,
    /// The time was up.
    Expired,
    /// Too many waited already.
    Busy,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Ready => "ready",
            Self::Stuck => "stuck",
            Self::Gone => "gone",
            Self::Expired => "expired",
            Self::Busy => "busy",
        }
    }
}

type Wait = BoxFuture<'static, Outcome>;

/// All waits of this server.
#[derive(Debug)]
pub(crate) struct FirstAnswers {
    /// The waits under way, by the UID of the Pod.
    under_way: Mutex<HashMap<Box<str>, WeakShared<Wait>>>,
    places: Semaphore,
    reach: Reach,
    lookups: Lookups,
}

impl Default for FirstAnswers {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            places: Semaphore::new(WAITING),
            reach: Reach::default(),
            lookups: Lookups::default(),
        }
    }
}

/// The part that one caller has in a wait; the wait ends with the last of them.
struct Part<'a> {
    owner: &'a FirstAnswers,
    uid: Box<str>,
    wait: Option<Shared<Wait>>,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        drop(self.wait.take());
        let mut under_way = self.owner.under_way.lock();
        if under_way.get(&self.uid).is_some_and(|wait| wait.upgrade().is_none()) {
            under_way.remove(&self.uid);
        }
    }
}

/// Waits for the sandbox that a create is about to answer with, and returns it as it is then.
pub(crate) async fn wait(inner: &Arc<Inner>, made: Arc<Sandbox>, deadline: Instant) -> Arc<Sandbox> {
    let patience = inner.settings.create_wait;
    if patience.is_zero() || is_settled(&made) {
        return made;
    }
    let Some(pod) = inner.index.records(&made.id).0 else { return made };
    let until = deadline.min(Instant::now() + patience);
    let outcome = match inner.first_answers.places.try_acquire() {
        Err(_) => Outcome::Busy,
        Ok(_place) => {
            let part = join(inner, &made, &pod);
            match part.wait.clone() {
                Some(wait) => timeout_at(until, wait).await.unwrap_or(Outcome::Expired),
                None => Outcome::Gone,
            }
        }
    };
    inner.metrics.create_waited(outcome);
    match inner.index.lookup(&made.id) {
        // Another sandbox may have taken the name meanwhile.
        Lookup::Found(now) if (&now.url, now.created_at) == (&made.url, made.created_at) => now,
        _ => made,
    }
}

fn is_settled(sandbox: &Sandbox) -> bool {
    let age = sandbox.created_at.map(|made| Timestamp::now().duration_since(made));
    sandbox.ready && age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > SETTLED))
}

/// The wait for this Pod that is under way, or a new one.
fn join<'a>(inner: &'a Arc<Inner>, sandbox: &Sandbox, pod: &PodRecord) -> Part<'a> {
    let owner = &inner.first_answers;
    let mut under_way = owner.under_way.lock();
    let shared = under_way.get(&pod.uid).and_then(WeakShared::upgrade).unwrap_or_else(|| {
        let (inner, id, uid) = (Arc::clone(inner), sandbox.id.clone(), pod.uid.clone());
        let url = sandbox.url.clone();
        async move { run(&inner, &id, &uid, &url).await }.boxed().shared()
    });
    if let Some(weak) = shared.downgrade() {
        under_way.insert(pod.uid.clone(), weak);
    }
    Part { owner, uid: pod.uid.clone(), wait: Some(shared) }
}

async fn run(inner: &Inner, id: &SandboxId, uid: &str, url: &str) -> Outcome {
    let waits = &inner.first_answers;
    let place = Place::of(url).filter(|_| waits.reach.may_be_tried());
    let Some(place) = place else { return pod_ready(inner, id, uid).await };
    let answered = async {
        pod_address(inner, id).await;
        let at_once = || WAITING - waits.places.available_permits();
        place.first_answer(&waits.lookups, at_once).await;
    };
    let ready_for_long = async {
        let outcome = pod_ready(inner, id, uid).await;
        if outcome == Outcome::Ready {
            sleep(AFTER_READY).await;
        }
        outcome
    };
    tokio::select! {
        biased;
        () = answered => {
            waits.reach.was_reached();
            Outcome::Answered
        }
        outcome = ready_for_long => {
            if outcome == Outcome::Ready {
                waits.reach.was_missed(url);
            }
            outcome
        }
    }
}

/// Waits until the kubelet has told the Pod's address: nothing leads there before, and an attempt at an address
/// whose interface is not there yet costs a second.
async fn pod_address(inner: &Inner, id: &SandboxId) {
    let mut changes = inner.index.subscribe();
    loop {
        changes.borrow_and_update();
        if inner.index.records(id).0.is_none_or(|pod| pod.has_address) || changes.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the Pod is ready, or will not be.
async fn pod_ready(inner: &Inner, id: &SandboxId, uid: &str) -> Outcome {
    let mut changes = inner.index.subscribe();
    loop {
        changes.borrow_and_update();
        let pod = inner.index.records(id).0.filter(|pod| &*pod.uid == uid && !pod.terminating);
        let Some(pod) = pod else { return Outcome::Gone };
        if pod.ready {
            return Outcome::Ready;
        }
        let is_wrong = pod.diagnosis.as_ref().is_some_and(|diagnosis| !diagnosis.is_waiting);
        if pod.is_finished() || is_wrong || changes.changed().await.is_err() {
            return Outcome::Stuck;
        }
    }
}
