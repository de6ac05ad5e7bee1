//! Which port and which slot a sandbox has. What one has, no other has, until it is given back.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;

use crate::launch::spec::UserMap;
use crate::settings::PortRange;

/// The first user id of the first slot: behind what systemd gives to containers (524288-1879048191), in a range
/// that nobody is known to use.
const FIRST_UID: u32 = 0x7000_0000;
/// How many slots fit before systemd's ids of foreign files (2147352576).
pub(crate) const SLOTS: u32 = (2_147_352_576 - FIRST_UID) / UserMap::COUNT;

/// The users of a slot.
#[must_use]
pub(crate) fn users(slot: u32) -> UserMap {
    UserMap::Range { first: FIRST_UID + slot * UserMap::COUNT }
}

/// What is given out.
#[derive(Debug)]
pub(crate) struct Places {
    range: PortRange,
    ports: BTreeSet<u16>,
    next_port: u16,
    /// Where the search for a slot begins.
    first_slot: u32,
    slots: BTreeSet<u32>,
    /// Slots whose users belong to somebody else on this machine.
    foreign: BTreeSet<u32>,
}

/// What there is none left of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// A port in the range.
    Port,
    /// Users of the machine for one more sandbox.
    Users,
}

/// A port and a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) slot: u32,
}

impl Places {
    /// `machine` is the state directory's id. Two on one machine begin their search for users at different places, so
    /// that their sandboxes hardly ever have the same ones.
    pub(crate) fn new(range: PortRange, machine: &str) -> Self {
        let mut foreign = BTreeSet::new();
        for path in ["/etc/subuid", "/etc/subgid"] {
            // Absent on many machines: then nobody was given any.
            let text = fs::read_to_string(path).unwrap_or_default();
            foreign.extend(subordinate(&text).flat_map(|ids| overlapping(&ids)));
        }
        let first_slot = first_slot(machine);
        let (ports, slots) = (BTreeSet::new(), BTreeSet::new());
        Self { range, ports, next_port: range.first(), first_slot, slots, foreign }
    }

    /// A place for a new sandbox. Its slot may be one that was taken before.
    ///
    /// # Errors
    /// What there is none left of.
    pub(crate) fn take(&mut self, slot: impl FnOnce() -> Option<u32>) -> Result<Place, NoPlace> {
        let port = self.free_port(&BTreeSet::new()).ok_or(NoPlace::Port)?;
        let slot = slot().or_else(|| self.take_slot()).ok_or(NoPlace::Users)?;
        self.ports.insert(port);
        Ok(Place { port, slot })
    }

    /// A slot alone, for a sandbox to come.
    pub(crate) fn take_slot(&mut self) -> Option<u32> {
        let mut slots = (0..SLOTS).map(|step| (self.first_slot + step) % SLOTS);
        let slot = slots.find(|slot| !self.slots.contains(slot) && !self.foreign.contains(slot))?;
        self.slots.insert(slot);
        Some(slot)
    }

    pub(crate) fn give_back_slot(&mut self, slot: u32) {
        self.slots.remove(&slot);
    }

    /// Another port instead of one that somebody else on this machine has, and none of those that were tried.
    pub(crate) fn another_port(&mut self, taken: u16, tried: &BTreeSet<u16>) -> Option<u16> {
        let port = self.free_port(tried)?;
        self.ports.remove(&taken);
        self.ports.insert(port);
        Some(port)
    }

    /// Notes what a sandbox has already.
    pub(crate) fn claim(&mut self, place: Place) {
        self.ports.insert(place.port);
        self.slots.insert(place.slot);
    }

    pub(crate) fn give_back(&mut self, place: Place) {
        self.ports.remove(&place.port);
        self.slots.remove(&place.slot);
    }

    /// The slots that are given out.
    pub(crate) fn slots(&self) -> Vec<u32> {
        self.slots.iter().copied().collect()
    }

    /// One after the other, so that a port given back is the last to be given out: who still has its URL must
    /// not reach another sandbox.
    fn free_port(&mut self, tried: &BTreeSet<u16>) -> Option<u16> {
        let count = self.range.count();
        let start = u32::from(self.next_port - self.range.first());
        let port = (0..count).find_map(|step| {
            let offset = u16::try_from((start + step) % count).ok()?;
            let port = self.range.first() + offset;
            (!self.ports.contains(&port) && !tried.contains(&port)).then_some(port)
        })?;
        self.next_port = if port == self.range.last() { self.range.first() } else { port + 1 };
        Some(port)
    }
}

/// A number that stands for the id (FNV-1a), among those there are.
fn first_slot(machine: &str) -> u32 {
    let hash = machine
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % SLOTS
}

/// The ranges of `/etc/subuid`: `name:first:count` a line.
fn subordinate(text: &str) -> impl Iterator<Item = Range<u64>> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        let first: u64 = fields.next()?.trim().parse().ok()?;
        let count: u64 = fields.next()?.trim().parse().ok()?;
        Some(first..first.saturating_add(count))
    })
}

/// The slots that share ids with the range.
fn overlapping(ids: &Range<u64>) -> Range<u32> {
    let slot = |id: u64, up: u64| {
        let offset = id.saturating_sub(u64::from(FIRST_UID));
        let slot = (offset + up) / u64::from(UserMap::COUNT);
        u32::try_from(slot).unwrap_or(SLOTS).min(SLOTS)
    };
    slot(ids.start, 0)..slot(ids.end, u64::from(UserMap::COUNT) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_places(first: u16, last: u16) -> Places {
        let mut places = Places::new(PortRange::new(first, last).unwrap(), "");
        places.foreign.clear();
        places.first_slot = 0;
        places
    }

    #[test]
    fn nothing_is_given_out_twice() {
        let mut places = mk_places(100, 102);
        places.claim(Place { port: 101, slot: 0 });
        let first = places.take(|| None).unwrap();
        let second = places.take(|| None).unwrap();
        assert_eq!((first, second), (Place { port: 100, slot: 1 }, Place { port: 102, slot: 2 }));
        assert_eq!(places.take(|| None), Err(NoPlace::Port));
        places.give_back(first);
        assert_eq!(places.take(|| None), Ok(first));
    }

    #[test]
    fn two_state_directories_begin_at_different_users() {
        let of = |machine: &str| {
            let mut places = Places::new(PortRange::DEFAULT, machine);
            places.foreign.clear();
            places.take(|| None).unwrap().slot
        };
        let one = "0c1d2e3f-0000-4000-8000-000000000001";
        assert_eq!(of(one), of(one));
        assert_ne!(of(one), of("0c1d2e3f-0000-4000-8000-000000000002"));
        let mut last = mk_places(100, 110);
        last.first_slot = SLOTS - 1;
        assert_eq!([last.take(|| None).unwrap().slot, last.take(|| None).unwrap().slot], [SLOTS - 1, 0]);
    }

    #[test]
    fn a_port_given_back_is_the_last_to_be_given_out() {
        let mut places = mk_places(100, 103);
        let mut ports = Vec::new();
        for _ in 0..5 {
            let place = places.take(|| None).unwrap();
            ports.push(place.port);
            places.give_back(place);
        }
        assert_eq!(ports, [100, 101, 102, 103, 100]);
    }

    #[test]
    fn a_port_of_somebody_else_is_exchanged() {
        let mut places = mk_places(100, 101);
        let place = places.take(|| None).unwrap();
        let mut tried = BTreeSet::from([place.port]);
        assert_eq!(places.another_port(place.port, &tried), Some(101));
        tried.insert(101);
        assert_eq!(places.another_port(101, &tried), None, "each is tried once");
        assert_eq!(places.another_port(101, &BTreeSet::new()), Some(100));
    }

    #[test]
    fn users_that_were_given_to_somebody_are_not_used() {
        let first = u64::from(FIRST_UID);
        let count = u64::from(UserMap::COUNT);
        assert_eq!(overlapping(&(100_000..165_536)), 0..0);
        assert_eq!(overlapping(&(first..first + 1)), 0..1);
        assert_eq!(overlapping(&(first + count - 1..first + count + 1)), 0..2);
        assert_eq!(overlapping(&(0..u64::MAX)), 0..SLOTS);
        let ranges: Vec<_> = subordinate("a:1:2\n# no\nb:x:1\nroot:100000:65536\n").collect();
        assert_eq!(ranges, [1..3, 100_000..165_536]);
    }
}
