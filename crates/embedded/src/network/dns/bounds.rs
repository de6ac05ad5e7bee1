//! How much is done at once: for one sandbox, and for all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts what is being done, by who asked for it.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    each: usize,
    all: usize,
    /// Only those who have something being done, so it has no more entries than `all`.
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    each: HashMap<IpAddr, usize>,
    all: usize,
}

/// The right to do one thing; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    bound: Bound,
    who: IpAddr,
}

impl Bound {
    pub(super) fn new(each: usize, all: usize) -> Self {
        Self { each, all, counts: Arc::default() }
    }

    /// A turn for someone; `None` when there is too much to do.
    pub(super) fn turn(&self, who: IpAddr) -> Option<Turn> {
        let mut counts = self.counts.lock();
        if counts.all >= self.all || counts.each.get(&who).is_some_and(|count| *count >= self.each) {
            return None;
        }
        counts.all += 1;
        *counts.each.entry(who).or_default() += 1;
        Some(Turn { bound: self.clone(), who })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.bound.counts.lock();
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.each.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.each.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sandbox_cannot_take_all_turns() {
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let bound = Bound::new(2, 3);
        let turns = [bound.turn(one), bound.turn(one)];
        assert!(turns.iter().all(Option::is_some));
        assert!(bound.turn(one).is_none(), "its own bound");
        let third = bound.turn(other);
        assert!(third.is_some());
        assert!(bound.turn(other).is_none(), "the bound of all");
        drop(turns);
        assert!(bound.turn(one).is_some());
        drop(third);
        assert!(bound.counts.lock().each.is_empty());
    }
}
