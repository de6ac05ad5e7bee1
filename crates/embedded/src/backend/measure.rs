//! How much room the files of sandboxes take, and what becomes of one whose files take too much.
//!
//! Walking through a tree is dear, so it is done when it may tell something new. What all of them wrote together is read
//! from the file system, which costs nothing: a sandbox that had so much room left when it was measured is measured
//! again when about as much was written by all. And it has to have run since: who used no processor wrote nothing.
//! Whatever hides from that, like room that others gave back meanwhile, is found by a measurement now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stockade_core::SandboxId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::entry::Entry;
use super::evict::evict;
use super::inner::Inner;
use crate::cgroup::SandboxCgroup;
use crate::launch::spec::WritableLayer;
use crate::state::record::Phase;
use crate::state::usage::{self, Room};

/// How often it is looked at what was written.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// How often the files of one sandbox are measured at least.
const MEASURE: Duration = Duration::from_secs(15);
/// How many sandboxes are measured at once: one with a large tree does not keep the others waiting.
const AT_ONCE: usize = 4;
/// A measurement is followed by a rest of so many times its own length: many files near the limit cost no more than a
/// quarter of a processor.
const REST: u32 = 3;
/// And each sandbox makes the rest of all so much longer: hundreds near their limits do not busy the machine.
const REST_FOR_EACH: Duration = Duration::from_millis(2);

/// What is known of the files of all sandboxes.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    written: Written,
    known: HashMap<SandboxId, Known>,
    now: JoinSet<(SandboxId, Known)>,
    turns: Turns,
}

/// What all have written since the start, in room that it takes.
#[derive(Debug, Default)]
struct Written {
    total: Room,
    used: Option<Room>,
}

impl Written {
    /// Adds what is used more than when it was looked last.
    fn look(&mut self, used: Room) {
        let before = self.used.replace(used).unwrap_or(used);
        self.total.bytes += used.bytes.saturating_sub(before.bytes);
        self.total.files += used.files.saturating_sub(before.files);
    }
}

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// It is being measured.
    busy: bool,
    /// When it was measured last, and how long that took.
    at: Instant,
    took: Duration,
    /// What all had written when that began.
    written: Room,
    /// What it might still write then.
    left: Room,
    /// The processor time it had used by then, where that is counted.
    ran: Option<Duration>,
}

impl Known {
    /// Whether a measurement may tell something new.
    fn is_due(&self, written: Room, sandboxes: u32, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        let rest = self.took.saturating_mul(REST) + REST_FOR_EACH.saturating_mul(sandboxes);
        if self.busy || since < rest {
            return false;
        }
        // Half, because others may have given room back meanwhile.
        let near = |now: u64, then: u64, left: u64| now > then && now - then >= left / 2;
        since >= MEASURE
            || near(written.bytes, self.written.bytes, self.left.bytes)
            || near(written.files, self.written.files, self.left.files)
    }
}

impl Measuring {
    /// Has the files of sandboxes measured where that may tell something new. Waits for none of it.
    pub(super) fn look(&mut self, inner: &Arc<Inner>, entries: &[Arc<Entry>]) {
        while let Some(done) = self.now.try_join_next() {
            match done {
                Ok((id, known)) => drop(self.known.insert(id, known)),
                // Whose it was is not told; at worst one more is measured twice.
                Err(_) if self.now.is_empty() => self.known.clear(),
                Err(_) => {}
            }
        }
        let sizes = entries.iter().filter_map(|entry| entry.now().disk_used);
        inner.metrics.disk_used(sizes.fold(0, u64::saturating_add));
        if let Ok(used) = usage::of_file_system(inner.state.root()) {
            self.written.look(used);
        }
        self.known.retain(|id, _| inner.entry(id).is_some());
        let (written, now) = (self.written.total, Instant::now());
        let sandboxes = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        for entry in entries {
            let (on_disk, limit) = entry.with(|record| {
                let on_disk = matches!(record.launch.writable, WritableLayer::Disk(_));
                (on_disk && record.life.phase == Phase::Live, record.limits.storage)
            });
            let known = self.known.get(&entry.id).copied();
            if !on_disk || known.is_some_and(|known| !known.is_due(written, sandboxes, now)) {
                continue;
            }
            let known = known.unwrap_or(Known {
                busy: true,
                at: now,
                took: Duration::ZERO,
                written,
                left: Room::default(),
                ran: None,
            });
            self.known.insert(entry.id.clone(), Known { busy: true, ..known });
            let task = Task { inner: Arc::clone(inner), entry: Arc::clone(entry), limit, written, known };
            let turns = Arc::clone(&self.turns.0);
            self.now.spawn(async move {
                // Never closed.
                let _turn = turns.acquire().await;
                let known = task.measure().await;
                (task.entry.id.clone(), Known { busy: false, at: Instant::now(), ..known })
            });
        }
    }
}

/// Turns to read trees.
#[derive(Debug)]
struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// The measurement of one sandbox.
struct Task {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    limit: u64,
    /// What all have written by now.
    written: Room,
    known: Known,
}

/// What a measurement tells.
struct Taken {
    /// `None`: as it was, because it did not run since.
    room: Option<Room>,
    ran: Option<Duration>,
}

impl Task {
    /// Measures its files, and evicts it when they take too much.
    async fn measure(&self) -> Known {
        let Self { inner, entry, .. } = self;
        let began = Instant::now();
        let most = Room::within(self.limit);
        let open = entry.open();
        let first = entry.with(|record| record.life.process.as_ref().map(|process| process.pid));
        let files = inner.state.files(&entry.id);
        // Now and then without asking whether it ran.
        let last = self.known.ran.filter(|_| began.saturating_duration_since(self.known.at) < MEASURE);
        let taken = tokio::task::spawn_blocking(move || {
            let ran = open.cgroup.as_ref().and_then(|cgroup| cgroup.usage().cpu);
            if ran.is_some() && ran == last {
                return Ok(Taken { room: None, ran });
            }
            let room = room(&files, open.cgroup.as_deref(), first, &most)?;
            Ok::<_, std::io::Error>(Taken { room: Some(room), ran })
        });
        let known = Known { took: began.elapsed(), written: self.written, ..self.known };
        let taken = match taken.await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(sandbox_id = %entry.id, %error, "its files cannot be measured");
                return Known { took: began.elapsed(), ..known };
            }
            Err(_) => return known,
        };
        let known = Known { took: began.elapsed(), ran: taken.ran, ..known };
        let Some(room) = taken.room else { return known };
        if room.files <= most.files {
            // Beyond that not all were looked at.
            inner.know(entry, |now| now.disk_used = Some(room.bytes));
        }
        if room.exceeds(&most) {
            let turn = entry.turn().await;
            evict(inner, entry, &turn, &room, &most).await;
        }
        let left = Room {
            bytes: most.bytes.saturating_sub(room.bytes),
            files: most.files.saturating_sub(room.files),
        };
        Known { left, ..known }
    }
}

/// What the files of a sandbox take: those that have names, and those that its processes hold without.
fn room(
    files: &std::path::Path,
    cgroup: Option<&SandboxCgroup>,
    first: Option<i32>,
    most: &Room,
) -> std::io::Result<Room> {
    let named = usage::of_tree(files, most)?;
    let mut processes = cgroup.map(SandboxCgroup::processes).unwrap_or_default();
    if processes.is_empty() {
        processes = first.map(usage::descendants).unwrap_or_default();
    }
    let nameless = usage::of_nameless(&processes);
    Ok(Room {
        bytes: named.bytes.saturating_add(nameless.bytes),
        files: named.files.saturating_add(nameless.files),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mk_known(now: Instant) -> Known {
        Known {
            busy: false,
            at: now,
            took: Duration::from_millis(10),
            written: Room { bytes: 500 * MIB, files: 700 },
            left: Room { bytes: 100 * MIB, files: 1000 },
            ran: None,
        }
    }

    fn room_of(bytes: u64, files: u64) -> Room {
        Room { bytes, files }
    }

    #[test]
    fn one_is_measured_again_when_as_much_was_written_as_it_had_left() {
        let began = Instant::now();
        let known = mk_known(began);
        let soon = began + Duration::from_millis(250);
        for (written, due) in [
            (room_of(500 * MIB, 700), false),
            (room_of(549 * MIB, 700), false),
            (room_of(550 * MIB, 700), true),
            (room_of(500 * MIB, 1200), true),
        ] {
            assert_eq!(known.is_due(written, 1, soon), due, "{written:?}");
        }
        assert!(known.is_due(known.written, 1, began + MEASURE), "now and then in any case");
        let full = Known { left: Room::default(), ..known };
        assert!(!full.is_due(known.written, 1, soon), "nothing was written");
        assert!(full.is_due(room_of(500 * MIB + 1, 700), 1, soon));
    }

    #[test]
    fn measuring_rests_in_proportion_to_what_it_costs() {
        let began = Instant::now();
        let known = Known { took: Duration::from_millis(400), ..mk_known(began) };
        let much = room_of(1 << 40, 700);
        assert!(!known.is_due(much, 1, began + Duration::from_millis(1100)));
        assert!(known.is_due(much, 1, began + Duration::from_millis(1300)));
        let one_of_many = mk_known(began);
        assert!(!one_of_many.is_due(much, 500, began + Duration::from_millis(900)));
        assert!(one_of_many.is_due(much, 500, began + Duration::from_millis(1100)));
        assert!(!Known { busy: true, ..one_of_many }.is_due(much, 1, began + MEASURE));
    }

    #[test]
    fn room_given_back_hides_nothing_that_is_written_later() {
        let mut written = Written::default();
        for used in [100, 150, 20, 60] {
            written.look(room_of(used, 1000 - used));
        }
        assert_eq!(written.total, room_of(90, 130));
    }
}
