//! Sandboxes that are half made before anybody asks for them.
//!
//! Most of a launch is the same for many sandboxes: control groups, a network, a root put together of layers, a program
//! that is executed. A few of these wait for whose they will be. What they have of the machine is theirs for good: users
//! (a slot) and groups, which are named after the incarnation of the sandbox that they become.
//!
//! They end with the server. What is left of them then is named by a directory each ([`StateDir::standbys`]).
//!
//! [`StateDir::standbys`]: crate::state::StateDir::standbys

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockade_core::egress::EgressPolicy;
use tokio::sync::Notify;

use super::error::{StartFailure, chain};
use super::inner::Inner;
use super::places;
use super::start::{limits, network};
use crate::cgroup::{CgroupError, SandboxCgroup};
use crate::launch::spec::{LaunchSpec, RootFs, UserMap, WritableLayer};
use crate::launch::{Standby, StandbyFds};
use crate::network::{Prepared, ResolvedPolicy};
use crate::settings::WritableKind;
use crate::state::record::StoredLimits;

/// After a failure, how long until the next try. Sandboxes are made without meanwhile.
const PAUSE: Duration = Duration::from_secs(10);
/// While some are left, how long the next waits: whoever just got a sandbox is about to use it, and should have the
/// processors for that.
const BREATH: Duration = Duration::from_millis(2);
/// How long what belongs to one may take to be gone.
const GONE: Duration = Duration::from_secs(5);
/// The same when the server ends, which nobody should wait for.
const AT_THE_END: Duration = Duration::from_millis(200);

/// Those that are ready.
#[derive(Debug, Default)]
pub(crate) struct Standbys {
    ready: Mutex<VecDeque<Ready>>,
    /// What the last one that was taken is to reach. The next is likely to be for the same.
    policy: Mutex<Option<ResolvedPolicy>>,
    changed: Notify,
}

/// One that waits.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) incarnation: String,
    pub(crate) slot: u32,
    /// How it was begun.
    pub(crate) spec: LaunchSpec,
    pub(crate) limits: StoredLimits,
    pub(crate) process: Standby,
    pub(crate) cgroup: Arc<SandboxCgroup>,
    /// What its network reaches.
    policy: ResolvedPolicy,
    network: Option<Prepared>,
}

impl Ready {
    /// Its network, if it is what a sandbox is to reach.
    pub(crate) fn network(&mut self, policy: &ResolvedPolicy) -> Option<Prepared> {
        (self.policy == *policy).then(|| self.network.take()).flatten()
    }
}

impl Standbys {
    /// One for a sandbox with this network.
    pub(crate) fn take(&self, policy: &ResolvedPolicy) -> Option<Ready> {
        *self.policy.lock() = Some(policy.clone());
        self.ready.lock().pop_front()
    }

    pub(crate) fn count(&self) -> usize {
        self.ready.lock().len()
    }

    /// Some were taken, or there is room for more.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }
}

/// Keeps as many ready as there should be. Never ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        while is_wanted(&inner) {
            if inner.standbys.count() > 0 {
                tokio::time::sleep(BREATH).await;
            }
            match make(&inner).await {
                Ok(Some(ready)) => {
                    inner.standbys.ready.lock().push_back(ready);
                    inner.metrics.standby(inner.standbys.count());
                }
                Ok(None) => break,
                Err(failure) => {
                    tracing::warn!(error = chain(&failure), "no sandbox can be prepared ahead; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        inner.standbys.changed.notified().await;
    }
}

/// They take no place from a sandbox, also not from one that is made while one of them is.
fn is_wanted(inner: &Inner) -> bool {
    let ready = inner.standbys.count();
    let room = usize::try_from(inner.settings.max_sandboxes).unwrap_or(usize::MAX);
    let wanted = usize::try_from(inner.settings.standby).unwrap_or(usize::MAX);
    ready < wanted && inner.count() + ready + 1 < room
}

/// `None`: there is no place for one.
async fn make(inner: &Arc<Inner>) -> Result<Option<Ready>, StartFailure> {
    let Some(slot) = inner.places.lock().take_slot() else { return Ok(None) };
    let incarnation = uuid::Uuid::new_v4().to_string();
    let made = try_make(inner, slot, &incarnation).await;
    if made.is_err() {
        discard(inner, slot, &incarnation).await;
    }
    made.map(Some)
}

async fn try_make(inner: &Arc<Inner>, slot: u32, incarnation: &str) -> Result<Ready, StartFailure> {
    let defaults = &inner.settings.limits;
    let stored = StoredLimits {
        millicores: defaults.cpu.0,
        memory: defaults.memory.0,
        storage: defaults.storage.0,
        pids: defaults.pids,
    };
    let asked = inner.standbys.policy.lock().clone();
    let policy = match asked {
        Some(policy) => policy,
        None => inner.network.resolve(&EgressPolicy::default()).map_err(StartFailure::Policy)?,
    };
    let mut spec = template(inner, slot, incarnation);
    inner.state.make_standby(incarnation).map_err(StartFailure::Files)?;
    let (name, limits) = (incarnation.to_owned(), limits(&stored));
    let cgroup = Arc::new(inner.cgroup(move |cgroups| cgroups.create(&name, &limits)).await?);
    spec.groups = cgroup.shown();
    let network = network(inner, slot, &policy).await?;
    let fds = descriptors(&cgroup)?;
    let launcher = inner.launcher().await.map_err(StartFailure::Launch)?;
    let process = match launcher.stand_by(&spec, fds).await {
        Err(error) if super::inner::is_gone(&error) => {
            inner.replace_launcher(&launcher).await;
            return Err(StartFailure::Launch(error));
        }
        made => made.map_err(StartFailure::Launch)?,
    };
    let (incarnation, network) = (incarnation.to_owned(), Some(network));
    Ok(Ready { incarnation, slot, spec, limits: stored, process, cgroup, policy, network })
}

fn descriptors(cgroup: &SandboxCgroup) -> Result<StandbyFds, StartFailure> {
    let groups = |fds: Result<Vec<OwnedFd>, CgroupError>| fds.map_err(StartFailure::Cgroup);
    Ok(StandbyFds { join: groups(cgroup.join_fds())?, commands: groups(cgroup.command_fds())? })
}

/// A sandbox of which only that is known which most have in common.
fn template(inner: &Inner, slot: u32, incarnation: &str) -> LaunchSpec {
    let settings = &inner.settings;
    LaunchSpec {
        id: incarnation.to_owned(),
        users: if inner.facts.privileged { places::users(slot) } else { UserMap::Single },
        root: RootFs::HostSystem,
        writable: match settings.writable {
            WritableKind::Disk => WritableLayer::Disk(inner.state.standby(incarnation)),
            WritableKind::Tmpfs => WritableLayer::Tmpfs { bytes: settings.limits.storage.0 },
        },
        binds: Vec::new(),
        environment: BTreeMap::new(),
        name_server: None,
        known_host: None,
        agent_port: settings.container_port,
        processes: None,
        grace: settings.delete_grace,
        only_reads: None,
        shared_memory: settings.shared_memory.0,
        groups: Vec::new(),
    }
}

/// Removes what was made for one whose process is told to end. What cannot be removed is left to the next start.
async fn discard(inner: &Inner, slot: u32, incarnation: &str) {
    let name = incarnation.to_owned();
    let removed = async {
        inner.cgroup(move |cgroups| cgroups.discard(&name, GONE)).await?;
        inner.network.release(slot).await.map_err(StartFailure::Network)?;
        inner.state.discard_standby(incarnation).map_err(StartFailure::Standby)
    };
    match removed.await {
        Ok(()) => inner.places.lock().give_back_slot(slot),
        Err(failure) => {
            tracing::error!(incarnation, error = chain(&failure), "something prepared ahead is left");
        }
    }
    inner.trash.collect();
}

/// Ends and removes all of them, when the server ends. What cannot be removed at once is left to the next start.
pub(crate) fn end(inner: &Inner) {
    for ready in std::mem::take(&mut *inner.standbys.ready.lock()) {
        let incarnation = ready.incarnation.clone();
        // Its process ends with the connection.
        drop(ready);
        if inner.cgroups.discard(&incarnation, AT_THE_END).is_ok() {
            // Not through the trash, whose thread ends with the server, too.
            let _ = inner.state.remove_standby(&incarnation);
        }
    }
}

/// Removes what an earlier server left of those it had, which ended with it; how many these were.
pub(crate) async fn sweep(inner: &Inner) -> usize {
    let left = inner.state.standbys();
    for incarnation in &left {
        let name = incarnation.clone();
        if let Err(error) = inner.cgroup(move |cgroups| cgroups.discard(&name, GONE)).await {
            tracing::error!(incarnation, error = chain(&error), "processes prepared ahead cannot be ended");
            continue;
        }
        if let Err(error) = inner.state.discard_standby(incarnation) {
            tracing::error!(incarnation, error = chain(&error), "files prepared ahead cannot be removed");
        }
    }
    left.len()
}
