//! How much the relay takes on: descriptors are what it runs out of first.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections of one sandbox: what browsers, pools of clients and terminals of one user need, with room.
pub(super) const PER_SANDBOX: usize = 512;
/// Those of them that may wait for it to start.
pub(super) const WAITING_PER_SANDBOX: usize = 256;
/// Refused connections that still get their answer.
pub(super) const REFUSALS: usize = 64;
/// A port, a network namespace, what thaws it.
const DESCRIPTORS_PER_SANDBOX: usize = 3;
const DESCRIPTORS_PER_CONNECTION: usize = 2;
/// For the relay itself, refused connections, name queries of sandboxes, and messages on their way.
const RESERVED: usize = 128 + REFUSALS;
/// More descriptors than this are never needed here, and tables of them cost memory.
const MOST_DESCRIPTORS: u64 = 1024 * 1024;

/// What is taken of what there is.
#[derive(Debug)]
pub(super) struct Limits {
    descriptors: usize,
    used: AtomicUsize,
}

impl Limits {
    /// Raises the limit of descriptors as far as this process may, and counts from there.
    pub(super) fn of_this_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let most = maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
        let raised = match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
            Ok(()) => most,
            Err(_) => current.unwrap_or(MOST_DESCRIPTORS),
        };
        Self::new(usize::try_from(raised).unwrap_or(usize::MAX))
    }

    pub(super) fn new(descriptors: usize) -> Self {
        Self { descriptors, used: AtomicUsize::new(RESERVED) }
    }

    /// How many descriptors there are.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    pub(super) fn take_sandbox(self: &std::sync::Arc<Self>) -> Option<Taken> {
        self.take(DESCRIPTORS_PER_SANDBOX)
    }

    pub(super) fn take_connection(self: &std::sync::Arc<Self>) -> Option<Taken> {
        self.take(DESCRIPTORS_PER_CONNECTION)
    }

    fn take(self: &std::sync::Arc<Self>, descriptors: usize) -> Option<Taken> {
        let within = |used: usize| {
            let then = used.checked_add(descriptors)?;
            (then <= self.descriptors).then_some(then)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Taken { limits: std::sync::Arc::clone(self), descriptors })
    }
}

/// A share of the descriptors, given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    limits: std::sync::Arc<Limits>,
    descriptors: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.limits.used.fetch_sub(self.descriptors, Ordering::Relaxed);
    }
}
