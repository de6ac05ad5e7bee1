//! One lock per sandbox id, for as long as somebody holds or wants it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stockade_core::SandboxId;
use tokio::sync::OwnedMutexGuard;

/// Serialises the creates of one id in this process, so that twenty at once cost one Pod write and not
/// twenty. Other processes are held apart by the API server: one of two writes of a name wins.
#[derive(Debug, Default)]
pub(crate) struct KeyedLock {
    locks: Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held until dropped.
pub(crate) struct KeyedGuard<'a> {
    owner: &'a KeyedLock,
    id: SandboxId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyedLock {
    /// Waits for the turn. A caller that stops waiting leaves nothing behind once others are done.
    pub(crate) async fn lock(&self, id: &SandboxId) -> KeyedGuard<'_> {
        let lock = Arc::clone(self.locks.lock().entry(id.clone()).or_default());
        // Made before waiting: dropped while it waits, it still tidies up.
        let mut turn = KeyedGuard { owner: self, id: id.clone(), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for KeyedGuard<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = self.owner.locks.lock();
        // Clones are made under this lock only, so that a count of one is the map's own.
        if locks.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_id_has_one_holder_and_nothing_is_kept() {
        let locks = KeyedLock::default();
        let (a, b) = (SandboxId::new("a").unwrap(), SandboxId::new("b").unwrap());
        let held = locks.lock(&a).await;
        let _other = locks.lock(&b).await;
        let second = locks.lock(&a);
        futures::pin_mut!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(held);
        drop(second.await);
        assert_eq!(locks.locks.lock().len(), 1);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing() {
        let locks = KeyedLock::default();
        let id = SandboxId::new("a").unwrap();
        let held = locks.lock(&id).await;
        {
            let waiting = locks.lock(&id);
            futures::pin_mut!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        drop(held);
        assert!(locks.locks.lock().is_empty());
    }
}
