//! What to do about sandboxes that are half there.
//!
//! A sandbox is two things: a workload (its processes) and an address (what leads to them). They are made
//! one after the other, and whoever makes them can die in between. Planning looks at both, at the
//! clock it is given, and says what completes or removes the half. It never awaits and may be repeated; the
//! actions carry what they saw, so a stale plan does no harm.

use std::time::Duration;

use jiff::Timestamp;

use crate::id::SandboxId;

/// How long a workload may be without an address before somebody else gives it one. A create that is
/// still under way does it within one round trip; its own deadline is 25 s.
pub const COMPLETE_AFTER: Duration = Duration::from_secs(30);
/// How long an address may lead nowhere before it is removed. Kubernetes' own garbage collector does it
/// within seconds where the address has an owner; this is for those that have none.
pub const REMOVE_AFTER: Duration = Duration::from_secs(60);

/// A workload as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which one of those ever made under this id.
    pub uid: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it is on its way out.
    pub terminating: bool,
}

/// An address as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Which one of those ever made under this id.
    pub uid: String,
    /// Since when it has led nowhere; `None` while its workload is there.
    pub dangling_since: Option<Timestamp>,
}

/// Both halves of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halves {
    /// The name.
    pub id: SandboxId,
    /// The processes, when they are there.
    pub workload: Option<Workload>,
    /// What leads to them, when it is there.
    pub address: Option<Address>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give the workload an address, provided it is still this one.
    AddAddress {
        /// The sandbox.
        id: SandboxId,
        /// The workload that was seen.
        workload_uid: String,
    },
    /// Remove the address, provided it is still this one.
    RemoveAddress {
        /// The sandbox.
        id: SandboxId,
        /// The address that was seen.
        address_uid: String,
    },
}

/// What to do about what was seen, at this time.
#[must_use]
pub fn plan(observed: &[Halves], now: Timestamp) -> Vec<Action> {
    observed.iter().filter_map(|halves| plan_one(halves, now)).collect()
}

fn plan_one(halves: &Halves, now: Timestamp) -> Option<Action> {
    match (&halves.workload, &halves.address) {
        (Some(workload), None)
            if !workload.terminating && is_past(workload.created_at, COMPLETE_AFTER, now) =>
        {
            Some(Action::AddAddress { id: halves.id.clone(), workload_uid: workload.uid.clone() })
        }
        (None, Some(address)) if address.dangling_since.is_some_and(|at| is_past(at, REMOVE_AFTER, now)) => {
            Some(Action::RemoveAddress { id: halves.id.clone(), address_uid: address.uid.clone() })
        }
        _ => None,
    }
}

/// A clock that went backwards makes nothing older.
fn is_past(since: Timestamp, wait: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn mk_halves(workload: Option<(i64, bool)>, dangling_since: Option<Option<i64>>) -> Halves {
        Halves {
            id: SandboxId::new("s1").unwrap(),
            workload: workload.map(|(created, terminating)| Workload {
                uid: "w".into(),
                created_at: at(created),
                terminating,
            }),
            address: dangling_since.map(|since| Address { uid: "a".into(), dangling_since: since.map(at) }),
        }
    }

    #[test]
    fn a_whole_sandbox_needs_nothing() {
        assert_eq!(plan(&[mk_halves(Some((0, false)), Some(None))], at(10_000)), []);
    }

    #[test]
    fn a_workload_without_address_is_completed_after_a_while() {
        let halves = [mk_halves(Some((0, false)), None)];
        assert_eq!(plan(&halves, at(29)), []);
        let id = halves[0].id.clone();
        assert_eq!(plan(&halves, at(30)), [Action::AddAddress { id, workload_uid: "w".into() }]);
    }

    #[test]
    fn a_terminating_workload_gets_no_address() {
        assert_eq!(plan(&[mk_halves(Some((0, true)), None)], at(10_000)), []);
    }

    #[test]
    fn an_address_that_leads_nowhere_is_removed_after_a_while() {
        let halves = [mk_halves(None, Some(Some(0)))];
        assert_eq!(plan(&halves, at(59)), []);
        let id = halves[0].id.clone();
        assert_eq!(plan(&halves, at(60)), [Action::RemoveAddress { id, address_uid: "a".into() }]);
    }

    #[test]
    fn a_clock_that_went_backwards_removes_nothing() {
        assert_eq!(plan(&[mk_halves(None, Some(Some(100)))], at(0)), []);
    }
}
