//! The index: every sandbox of the namespace in memory, fed by the watches and by our own writes.
//!
//! # Order
//! Two sources write here: a watch, which sees everything in order but late, and our own writes, which are
//! seen at once. An object replaces another of its name only when its revision is higher, so neither source
//! can undo the other; and a write that comes in after the watch has already passed its revision is
//! dropped when the object is gone (it was deleted meanwhile, and the watch has told so).
//!
//! # Freshness
//! The index is only as good as the last proof that it has seen everything: an event, a bookmark or a list.
//! [`Index::proven_age`] is the age of the older of the two proofs; who reads decides what is too old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use stockade_core::{Sandbox, SandboxId, Status, plan};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::diagnosis::Diagnosis;
use crate::record::{Address, Kind, PodRecord, Record, Revision, ServiceRecord};

/// A Service whose Pod is not known is not shown for this long: the two watches are apart, and the Pod of a
/// sandbox that another replica made may only be on its way.
const DANGLING_GRACE: Duration = Duration::from_secs(2);

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A watch event: this is how far the watch has come.
    Watch,
    /// The answer to a read or write of our own.
    Direct,
}

/// What the index knows of one sandbox.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// It is there.
    Found(Arc<Sandbox>),
    /// It is not, or not completely: to be confirmed before it is said.
    Unconfirmed,
}

/// How URLs are made.
#[derive(Debug, Clone)]
pub(crate) struct UrlScheme {
    pub(crate) node_host: String,
    pub(crate) namespace: String,
}

impl UrlScheme {
    pub(crate) fn url(&self, id: &SandboxId, address: Address) -> String {
        match address {
            Address::NodePort(port) => format!("http://{}:{port}", self.node_host),
            Address::ClusterIp(port) => {
                let name = crate::manifest::service_name(id);
                format!("http://{name}.{}.svc.cluster.local:{port}", self.namespace)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    inner: RwLock<Inner>,
    changes: watch::Sender<u64>,
    urls: UrlScheme,
    /// Containers that were seen to be killed for memory.
    memory_kills: Counter,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<SandboxId, Entry>,
    pods: Progress,
    services: Progress,
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    pod: Option<PodRecord>,
    service: Option<ServiceRecord>,
    /// The last warning about this Pod, with its UID.
    warning: Option<(Box<str>, Diagnosis)>,
    dangling_since: Option<Timestamp>,
    /// What is answered; made when something changes, because it is read far more often.
    answer: Option<Arc<Sandbox>>,
}

/// A kind of record and its place in an entry.
pub(crate) trait Slot: Record {
    fn slot(entry: &mut Entry) -> &mut Option<Self>;
}

impl Slot for PodRecord {
    fn slot(entry: &mut Entry) -> &mut Option<Self> {
        &mut entry.pod
    }
}

impl Slot for ServiceRecord {
    fn slot(entry: &mut Entry) -> &mut Option<Self> {
        &mut entry.service
    }
}

#[derive(Debug, Default)]
struct Progress {
    revision: Revision,
    proven: Option<Instant>,
}

impl Inner {
    fn progress(&mut self, kind: Kind) -> &mut Progress {
        match kind {
            Kind::Pods => &mut self.pods,
            Kind::Services => &mut self.services,
        }
    }
}

impl Index {
    pub(crate) fn new(urls: UrlScheme, memory_kills: Counter) -> Self {
        Self { inner: RwLock::default(), changes: watch::Sender::new(0), urls, memory_kills }
    }

    pub(crate) fn urls(&self) -> &UrlScheme {
        &self.urls
    }

    /// What is known of a sandbox.
    pub(crate) fn lookup(&self, id: &SandboxId) -> Lookup {
        let inner = self.inner.read();
        match inner.entries.get(id).and_then(|entry| entry.answer.clone()) {
            Some(answer) if answer.status != Status::NotFound => Lookup::Found(answer),
            _ => Lookup::Unconfirmed,
        }
    }

    /// All sandboxes with an address, in the order of their ids.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<Arc<Sandbox>> {
        let inner = self.inner.read();
        let settled = |entry: &&Entry| {
            entry.dangling_since.is_none_or(|since| {
                Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= DANGLING_GRACE)
            })
        };
        inner.entries.values().filter(settled).filter_map(|entry| entry.answer.clone()).collect()
    }

    /// The Pod and the Service as they are known.
    pub(crate) fn records(&self, id: &SandboxId) -> (Option<PodRecord>, Option<ServiceRecord>) {
        let inner = self.inner.read();
        inner.entries.get(id).map(|e| (e.pod.clone(), e.service.clone())).unwrap_or_default()
    }

    /// How many sandboxes there are, half ones included.
    pub(crate) fn len(&self) -> usize {
        self.inner.read().entries.len()
    }

    /// The sandboxes that are half there.
    pub(crate) fn halves(&self) -> Vec<plan::Halves> {
        let inner = self.inner.read();
        let half = |entry: &&Entry| entry.pod.is_some() != entry.service.is_some();
        let entries = inner.entries.iter().filter(|(_, entry)| half(entry));
        entries
            .map(|(id, entry)| plan::Halves {
                id: id.clone(),
                workload: entry.pod.as_ref().map(|pod| plan::Workload {
                    uid: pod.uid.to_string(),
                    created_at: pod.created_at.unwrap_or_default(),
                    terminating: pod.terminating,
                }),
                address: entry.service.as_ref().map(|service| plan::Address {
                    uid: service.uid.to_string(),
                    dangling_since: entry.dangling_since,
                }),
            })
            .collect()
    }

    /// The age of the older of the two proofs; `None` before both are there.
    pub(crate) fn proven_age(&self, now: Instant) -> Option<Duration> {
        let inner = self.inner.read();
        let oldest = inner.pods.proven?.min(inner.services.proven?);
        Some(now.saturating_duration_since(oldest))
    }

    /// Changes with everything that changes in the index.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The watch has come to this revision.
    pub(crate) fn reach(&self, kind: Kind, revision: Revision) {
        let mut inner = self.inner.write();
        let progress = inner.progress(kind);
        progress.revision = progress.revision.max(revision);
    }

    /// The watch has come to this revision, and nothing is missing of what was there at this time.
    pub(crate) fn prove(&self, kind: Kind, revision: Revision, at: Instant) {
        let mut inner = self.inner.write();
        let progress = inner.progress(kind);
        progress.revision = progress.revision.max(revision);
        progress.proven = progress.proven.max(Some(at));
    }

    /// A complete list of this kind at this revision.
    pub(crate) fn replace<R: Slot>(
        &self,
        listed: Vec<(SandboxId, R)>,
        revision: Revision,
        at: Instant,
        now: Timestamp,
    ) {
        let mut inner = self.inner.write();
        let ids: BTreeSet<&SandboxId> = listed.iter().map(|(id, _)| id).collect();
        // Revisions only go back when the API server's store was restored from a copy; then nothing that was
        // seen before counts.
        let restored = revision < inner.progress(R::KIND).revision;
        let gone = inner.entries.iter_mut().filter_map(|(id, entry)| {
            let known = R::slot(entry).as_ref()?;
            (restored || !ids.contains(id) && known.revision() <= revision).then(|| id.clone())
        });
        for id in gone.collect::<Vec<_>>() {
            self.change(&mut inner, &id, now, |entry| *R::slot(entry) = None);
        }
        for (id, record) in listed {
            self.insert(&mut inner, &id, record, now);
        }
        let progress = inner.progress(R::KIND);
        progress.revision = revision;
        progress.proven = progress.proven.max(Some(at));
        drop(inner);
        self.notify();
    }

    /// An object was seen.
    pub(crate) fn put<R: Slot>(&self, id: &SandboxId, record: R, origin: Origin, now: Timestamp) {
        let mut inner = self.inner.write();
        let known = inner.entries.get_mut(id).and_then(|entry| R::slot(entry).as_ref().map(R::revision));
        if known.is_some_and(|known| known >= record.revision()) {
            return; // nothing new, and nobody to wake
        }
        if origin == Origin::Direct
            && known.is_none()
            && record.revision() <= inner.progress(R::KIND).revision
        {
            return; // the watch has already told of its end
        }
        self.insert(&mut inner, id, record, now);
        drop(inner);
        self.notify();
    }

    /// The object of this UID is gone.
    pub(crate) fn remove<R: Slot>(&self, id: &SandboxId, uid: &str, now: Timestamp) {
        let mut inner = self.inner.write();
        self.change(&mut inner, id, now, |entry| {
            R::slot(entry).take_if(|known| known.uid() == uid);
        });
        drop(inner);
        self.notify();
    }

    /// The Pod of this UID is on its way out, by our own delete.
    pub(crate) fn terminate(&self, id: &SandboxId, uid: &str, now: Timestamp) {
        let mut inner = self.inner.write();
        self.change(&mut inner, id, now, |entry| {
            if let Some(pod) = entry.pod.as_mut().filter(|pod| &*pod.uid == uid) {
                pod.terminating = true;
            }
        });
        drop(inner);
        self.notify();
    }

    /// Something went wrong with this Pod.
    pub(crate) fn warn(&self, id: &SandboxId, pod_uid: &str, warning: Diagnosis, now: Timestamp) {
        let mut inner = self.inner.write();
        let known = inner.entries.get(id).and_then(|entry| entry.pod.as_ref());
        if known.is_none_or(|pod| &*pod.uid != pod_uid || pod.ready) {
            return; // nothing is kept of what is not there or is well
        }
        self.change(&mut inner, id, now, |entry| entry.warning = Some((pod_uid.into(), warning)));
        drop(inner);
        self.notify();
    }

    fn insert<R: Slot>(&self, inner: &mut Inner, id: &SandboxId, record: R, now: Timestamp) {
        self.change(inner, id, now, |entry| {
            let slot = R::slot(entry);
            if slot.as_ref().is_none_or(|known| known.revision() < record.revision()) {
                *slot = Some(record);
            }
        });
    }

    /// Changes an entry, makes its answer anew, and forgets it when nothing is left of it.
    fn change(&self, inner: &mut Inner, id: &SandboxId, now: Timestamp, edit: impl FnOnce(&mut Entry)) {
        let entry = inner.entries.entry(id.clone()).or_default();
        let killed_before = entry.pod.as_ref().map(|pod| (pod.uid.clone(), pod.memory_kill_at()));
        edit(entry);
        let killed = entry.pod.as_ref().map(|pod| (&pod.uid, pod.memory_kill_at()));
        // What a Pod that is seen for the first time went through, somebody may have counted before us.
        if let (Some((uid, before)), Some((same, Some(at)))) = (killed_before, killed)
            && uid == *same
            && before.is_none_or(|before| before < at)
        {
            self.memory_kills.inc();
        }
        if entry.pod.is_none() && entry.service.is_none() {
            inner.entries.remove(id);
            return;
        }
        // A warning is about one Pod, and about one that is not well.
        let pod = entry.pod.as_ref();
        entry.warning.take_if(|(uid, _)| pod.is_none_or(|pod| pod.ready || pod.uid != *uid));
        let is_dangling = entry.pod.is_none();
        entry.dangling_since = is_dangling.then(|| entry.dangling_since.unwrap_or(now));
        let warning = entry.warning.as_ref().map(|(_, warning)| warning);
        entry.answer =
            answer(&self.urls, id, entry.pod.as_ref(), entry.service.as_ref(), warning, now).map(Arc::new);
    }

    /// Makes the answers anew that say what is too long ago by now.
    pub(crate) fn forget_old(&self, now: Timestamp) {
        let is_old = |entry: &Entry| {
            let kill = entry.pod.as_ref().filter(|pod| pod.ready).and_then(|pod| pod.memory_kill.as_ref());
            kill.is_some_and(|kill| !kill.is_told(now))
                && entry.answer.as_ref().is_some_and(|answer| answer.reason.is_some())
        };
        let inner = self.inner.read();
        let old: Vec<SandboxId> =
            inner.entries.iter().filter(|(_, entry)| is_old(entry)).map(|(id, _)| id.clone()).collect();
        drop(inner);
        let mut inner = self.inner.write();
        for id in old {
            self.change(&mut inner, &id, now, |_| {});
        }
    }

    fn notify(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }
}

/// What is answered about a sandbox of which this is known; `None` when there is nothing to show: no
/// address yet, or on its way out.
pub(crate) fn answer(
    urls: &UrlScheme,
    id: &SandboxId,
    pod: Option<&PodRecord>,
    service: Option<&ServiceRecord>,
    warning: Option<&Diagnosis>,
    now: Timestamp,
) -> Option<Sandbox> {
    let service = service.filter(|service| !service.terminating)?;
    let url = urls.url(id, service.address?);
    let Some(pod) = pod else {
        let reason = Some("PodMissing".to_owned());
        let message = "the Service is there and the Pod is not; creating the sandbox again makes a new one";
        return Some(Sandbox {
            id: id.clone(),
            url,
            status: Status::NotFound,
            ready: false,
            reason,
            message: Some(message.to_owned()),
            created_at: None,
            identity: None,
            contract: None,
            disk_used: None,
        });
    };
    if pod.terminating || !service.leads_to(&pod.uid) {
        return None;
    }
    let said = pod.diagnosis.as_ref();
    // An event knows more than a Pod that only waits.
    let diagnosis = match (warning, &pod.memory_kill) {
        (Some(warning), _) if !pod.ready && said.is_none_or(|said| said.is_waiting) => Some(warning),
        // It runs again, and what ran in it does not.
        (_, Some(kill)) if pod.ready && kill.is_told(now) => Some(&kill.diagnosis),
        _ => said,
    };
    Some(Sandbox {
        id: id.clone(),
        url,
        status: pod.status,
        ready: pod.ready,
        reason: diagnosis.map(|d| d.reason.to_string()),
        message: diagnosis.and_then(|d| d.message.as_deref()).map(str::to_owned),
        created_at: pod.created_at,
        identity: pod.identity.clone(),
        contract: pod.contract,
        disk_used: None,
    })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
