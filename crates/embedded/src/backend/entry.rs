//! One sandbox in memory: its record, what is open of it, and what callers see of it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use stockade_core::sandbox::SandboxEvent;
use stockade_core::{BackendError, Sandbox, SandboxId};
use tokio::sync::{OwnedMutexGuard, watch};

use super::error;
use super::places::Place;
use super::status::{self, Now};
use crate::cgroup::SandboxCgroup;
use crate::state::StateDir;
use crate::state::record::{Phase, Record};

/// How many events are kept of one sandbox.
const MAX_EVENTS: usize = 64;

/// One sandbox. Whoever changes it holds its turn; whoever looks does not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: SandboxId,
    turn: Arc<tokio::sync::Mutex<()>>,
    inside: Mutex<Inside>,
    seen: watch::Sender<Seen>,
}

/// Held by whoever changes a sandbox.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// What callers see.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// As answers show it.
    pub(crate) sandbox: Arc<Sandbox>,
    /// Whether answers show it at all.
    pub(crate) visible: bool,
    /// Nothing of it is left.
    pub(crate) gone: bool,
}

#[derive(Debug)]
struct Inside {
    record: Record,
    /// The record in the file is an older one, because this one could not be written.
    unsaved: bool,
    /// The record in the file says already that callers were told of it.
    ahead: bool,
    now: Now,
    open: Open,
    events: VecDeque<SandboxEvent>,
}

/// What is open of a sandbox whose processes run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open {
    /// Counts the starts that this server made or found: what was begun for another is void.
    pub(crate) start: u64,
    pub(crate) pidfd: Option<Arc<OwnedFd>>,
    pub(crate) netns: Option<Arc<OwnedFd>>,
    pub(crate) cgroup: Option<Arc<SandboxCgroup>>,
}

impl Entry {
    pub(crate) fn new(record: Record, node_host: &str) -> Arc<Self> {
        let now = Now::default();
        let seen = Seen {
            sandbox: Arc::new(status::sandbox(&record, &now, node_host)),
            visible: is_visible(record.life.phase),
            gone: false,
        };
        Arc::new(Self {
            id: record.id.clone(),
            turn: Arc::default(),
            inside: Mutex::new(Inside {
                record,
                unsaved: false,
                ahead: false,
                now,
                open: Open::default(),
                events: VecDeque::new(),
            }),
            seen: watch::Sender::new(seen),
        })
    }

    /// Waits for the turn to change it.
    pub(crate) async fn turn(&self) -> Turn {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// The turn, when nobody has it.
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    pub(crate) fn record(&self) -> Record {
        self.inside.lock().record.clone()
    }

    /// Something of the record, without a copy of all of it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.inside.lock().record)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.with(|record| record.life.phase)
    }

    pub(crate) fn place(&self) -> Place {
        self.with(|record| Place { port: record.port, slot: record.slot })
    }

    pub(crate) fn now(&self) -> Now {
        self.inside.lock().now.clone()
    }

    pub(crate) fn open(&self) -> Open {
        self.inside.lock().open.clone()
    }

    /// Changes what is open. With the turn.
    pub(crate) fn set_open<T>(&self, _turn: &Turn, change: impl FnOnce(&mut Open) -> T) -> T {
        change(&mut self.inside.lock().open)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Changes the record, first in its file. When that fails nothing is changed.
    pub(crate) fn write(
        &self,
        _turn: &Turn,
        state: &StateDir,
        node_host: &str,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), BackendError> {
        let record = self.changed(change);
        self.save(state, &record)?;
        self.keep(record, false, node_host);
        Ok(())
    }

    /// The record as it is after a change.
    fn changed(&self, change: impl FnOnce(&mut Record)) -> Record {
        let mut record = self.record();
        change(&mut record);
        record
    }

    fn save(&self, state: &StateDir, record: &Record) -> Result<(), BackendError> {
        state.write(record).map_err(|source| error::state(&self.id, source))
    }

    /// The same of a sandbox whose processes were just started. If callers were not told of it yet, its file says that
    /// they were: then nothing has to be written before they are ([`Entry::tell_of`]). A server that finds the file after
    /// a crash in between keeps a sandbox that whoever asked for it finds when he asks again.
    pub(crate) fn write_ahead(
        &self,
        _turn: &Turn,
        state: &StateDir,
        node_host: &str,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), BackendError> {
        let mut record = self.changed(change);
        let phase = record.life.phase;
        if phase == Phase::Making {
            record.life.phase = Phase::Live;
        }
        self.save(state, &record)?;
        record.life.phase = phase;
        self.keep(record, false, node_host);
        self.inside.lock().ahead = true;
        Ok(())
    }

    /// Answers show it from now on. Its file says so, or does after this.
    pub(crate) fn tell_of(&self, turn: &Turn, state: &StateDir, node_host: &str) -> Result<(), BackendError> {
        if !self.inside.lock().ahead {
            return self.write(turn, state, node_host, |record| record.life.phase = Phase::Live);
        }
        self.inside.lock().record.life.phase = Phase::Live;
        self.publish(node_host);
        Ok(())
    }

    /// Changes the record in any case: something has happened that cannot be refused. It is unsaved then until a
    /// record of this sandbox can be written again.
    pub(crate) fn write_if_possible(
        &self,
        _turn: &Turn,
        state: &StateDir,
        node_host: &str,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), BackendError> {
        let record = self.changed(change);
        let written = self.save(state, &record);
        self.keep(record, written.is_err(), node_host);
        written
    }

    /// Writes down that it is on its way out, which needs no room on the disk.
    pub(crate) fn write_deleting(
        &self,
        _turn: &Turn,
        state: &StateDir,
        node_host: &str,
    ) -> Result<(), BackendError> {
        state.mark_deleting(&self.id).map_err(|source| error::state(&self.id, source))?;
        let mut record = self.record();
        record.life.phase = Phase::Deleting;
        self.keep(record, false, node_host);
        Ok(())
    }

    fn keep(&self, record: Record, unsaved: bool, node_host: &str) {
        {
            let mut inside = self.inside.lock();
            inside.record = record;
            inside.unsaved = unsaved;
            inside.ahead = false;
        }
        self.publish(node_host);
    }

    /// Whether its file holds an older record.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.inside.lock().unsaved
    }

    /// Changes what the server knows beyond the record.
    pub(crate) fn know(&self, node_host: &str, change: impl FnOnce(&mut Now)) {
        change(&mut self.inside.lock().now);
        self.publish(node_host);
    }

    /// Nothing of it is left.
    pub(crate) fn set_gone(&self) {
        self.seen.send_modify(|seen| {
            seen.visible = false;
            seen.gone = true;
        });
    }

    fn publish(&self, node_host: &str) {
        let inside = self.inside.lock();
        let sandbox = status::sandbox(&inside.record, &inside.now, node_host);
        let visible = is_visible(inside.record.life.phase);
        // Under the lock, so that no older view comes later.
        self.seen.send_modify(|seen| {
            seen.visible = visible && !seen.gone;
            if *seen.sandbox != sandbox {
                seen.sandbox = Arc::new(sandbox);
            }
        });
    }

    /// Notes that something happened to it. The same again is counted.
    pub(crate) fn happened(&self, warning: bool, reason: &str, message: impl Into<String>) {
        let message = message.into();
        let now = Some(Timestamp::now());
        let events = &mut self.inside.lock().events;
        if let Some(last) = events.back_mut()
            && last.reason == reason
            && last.message == message
        {
            last.count = last.count.saturating_add(1);
            last.last_seen = now;
            return;
        }
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(SandboxEvent {
            last_seen: now,
            count: 1,
            warning,
            reason: reason.to_owned(),
            message,
        });
    }

    pub(crate) fn events(&self) -> Vec<SandboxEvent> {
        self.inside.lock().events.iter().cloned().collect()
    }
}

/// Callers were told of it, and not yet that it is gone.
fn is_visible(phase: Phase) -> bool {
    matches!(phase, Phase::Live | Phase::Failed)
}
