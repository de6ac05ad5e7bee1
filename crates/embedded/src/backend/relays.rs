//! The relay as the backend uses it: always there, and when it ends, there again with all ports.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use stockade_core::SandboxId;
use tokio::sync::{mpsc, watch};

use super::entry::Entry;
use super::error::chain;
use super::inner::Inner;
use super::status::Trouble;
use super::{end, pause, start};
use crate::network::Network;
use crate::relay::{self, Moment, Relay, RelayError, RelayEvent, RelayOptions};
use crate::state::record::{Failure, Phase, Record};

/// The wait before another attempt to start a relay.
const AGAIN: Duration = Duration::from_millis(500);

/// How long somebody who needs the relay waits for the next one when it has ended.
const NEXT: Duration = Duration::from_secs(5);

/// The relay there is.
#[derive(Debug)]
pub(crate) struct Relays {
    current: watch::Sender<Relay>,
    state_dir: PathBuf,
    bind: IpAddr,
    down: AtomicBool,
    /// The process that answers name queries; 0 for none.
    names_by: AtomicI32,
}

impl Relays {
    /// Finds the relay of an earlier server, or starts one.
    pub(crate) async fn start(
        state_dir: PathBuf,
        bind: IpAddr,
    ) -> Result<(Self, mpsc::Receiver<RelayEvent>), RelayError> {
        let (relay, events) = connect(&state_dir).await?;
        let current = watch::Sender::new(relay);
        Ok((
            Self { current, state_dir, bind, down: AtomicBool::new(false), names_by: AtomicI32::new(0) },
            events,
        ))
    }

    /// Whether there is none at the moment.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn current(&self) -> Relay {
        self.current.borrow().clone()
    }

    /// Opens the port of a sandbox.
    pub(crate) async fn listen(&self, id: &SandboxId, port: u16) -> Result<(), RelayError> {
        let address = SocketAddr::new(self.bind, port);
        match self.current().listen(id, address).await {
            Err(RelayError::Ended) => self.next().await.listen(id, address).await,
            result => result,
        }
    }

    /// Leads its port to its agent.
    pub(crate) async fn attach(&self, record: &Record, netns: &OwnedFd) -> Result<(), RelayError> {
        let copy = || netns.try_clone().map_err(RelayError::Socket);
        let (id, port) = (&record.id, record.launch.agent_port);
        match self.current().attach(id, copy()?, port).await {
            Err(RelayError::Ended) => drop(self.next().await),
            Err(RelayError::Unknown(_)) => {}
            result => return result,
        }
        // One that was started meanwhile does not know the port.
        self.listen(id, record.port).await?;
        self.current().attach(id, copy()?, port).await
    }

    /// Has its connections wait. Those whose request is cut are told why.
    pub(crate) async fn detach(&self, id: &SandboxId, why: Option<Failure>) -> Result<(), RelayError> {
        let why = why.map(|Failure { reason, message }| relay::Failure { reason, message });
        match self.current().detach(id, why).await {
            // The next one is told what is true then.
            Err(RelayError::Ended | RelayError::Unknown(_)) => Ok(()),
            result => result,
        }
    }

    /// Has its callers told that it is not started again, and why.
    pub(crate) async fn fail(&self, id: &SandboxId, failure: &Failure) -> Result<(), RelayError> {
        let Failure { reason, message } = failure.clone();
        match self.current().fail(id, relay::Failure { reason, message }).await {
            // The next one is told what is true then.
            Err(RelayError::Ended | RelayError::Unknown(_)) => Ok(()),
            result => result,
        }
    }

    /// Closes its port.
    pub(crate) async fn remove(&self, id: &SandboxId) -> Result<(), RelayError> {
        match self.current().remove(id).await {
            // Its ports are closed with it.
            Err(RelayError::Ended) => Ok(()),
            result => result,
        }
    }

    /// Has the relay answer the name queries of open networks, once there are any. Failing is said and not more: a
    /// sandbox without names still works.
    pub(crate) async fn serve_names(&self, network: &Network) {
        let Some((gateway, (clients, _))) = network.name_server().zip(network.subnet()) else { return };
        let IpAddr::V4(gateway) = gateway else { return };
        let relay = self.current();
        if self.names_by.load(Ordering::Relaxed) == relay.pid() {
            return;
        }
        match relay.serve_names(gateway, clients).await {
            Ok(()) => self.names_by.store(relay.pid(), Ordering::Relaxed),
            // The next one is asked when it is there.
            Err(RelayError::Ended) => {}
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%gateway, error, "names are not answered for sandboxes; this is tried again");
            }
        }
    }

    /// The relay after the one that has ended.
    async fn next(&self) -> Relay {
        let mut changes = self.current.subscribe();
        // Where it is not known yet that it ended, the next one may also be there already.
        let patience = if self.is_down() { NEXT } else { AGAIN };
        let _ = tokio::time::timeout(patience, changes.changed()).await;
        self.current()
    }
}

async fn connect(state_dir: &Path) -> Result<(Relay, mpsc::Receiver<RelayEvent>), RelayError> {
    // Name queries come to port 53.
    Relay::connect_or_start(RelayOptions { low_ports: true, ..RelayOptions::new(state_dir) }).await
}

/// Does what the relay asks for, and replaces it when it ends. Never ends itself.
pub(crate) async fn follow(inner: Arc<Inner>, mut events: mpsc::Receiver<RelayEvent>) {
    let relays = &inner.relays;
    loop {
        while let Some(event) = events.recv().await {
            match event {
                RelayEvent::Wanted(id) => on(&inner, &id, start::demanded),
                RelayEvent::Woken(id) => on(&inner, &id, pause::woken),
                RelayEvent::Ended => break,
            }
        }
        relays.down.store(true, Ordering::Relaxed);
        tracing::error!("the relay has ended; starting another with the same ports");
        events = loop {
            match connect(&relays.state_dir).await {
                Ok((relay, events)) => {
                    relays.current.send_replace(relay);
                    break events;
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "the relay cannot be started; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        relays.down.store(false, Ordering::Relaxed);
        inner.metrics.relay_restarted();
        relays.serve_names(&inner.network).await;
        for entry in inner.entries() {
            let inner = Arc::clone(&inner);
            // Each by itself: one that is being changed must not keep the others' ports closed.
            tokio::spawn(async move { restore(&inner, &entry).await });
        }
    }
}

/// Starts work for a sandbox beside everything else.
fn on<F>(inner: &Arc<Inner>, id: &SandboxId, work: fn(Arc<Inner>, Arc<Entry>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if let Some(entry) = inner.entry(id) {
        tokio::spawn(work(Arc::clone(inner), entry));
    }
}

/// Opens the port of a sandbox that is there, and leads it where it leads.
pub(crate) async fn restore(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let turn = entry.turn().await;
    if !matches!(entry.phase(), Phase::Live | Phase::Failed) {
        return;
    }
    let place = entry.place();
    match inner.relays.listen(&entry.id, place.port).await {
        Ok(()) => {
            let had = entry.now().trouble.is_some_and(|trouble| trouble.reason == ADDRESS_LOST);
            if had {
                inner.know(entry, |now| now.trouble = None);
            }
        }
        Err(error) => {
            let message = format!("its address cannot be opened: {}; this is tried again", chain(&error));
            tracing::error!(sandbox_id = %entry.id, port = place.port, "{message}");
            entry.happened(true, ADDRESS_LOST, message.clone());
            inner.know(entry, |now| now.trouble = Some(Trouble { reason: ADDRESS_LOST, message }));
            return;
        }
    }
    if entry.with(|record| !record.life.may_run()) {
        end::lead_away(inner, entry, None).await;
        return;
    }
    let open = entry.open();
    let Some(netns) = open.netns.filter(|_| entry.now().runs) else { return };
    if let Err(error) = inner.relays.attach(&entry.record(), &netns).await {
        tracing::error!(sandbox_id = %entry.id, error = chain(&error), "its port cannot be led to it");
        return;
    }
    if entry.with(|record| record.life.paused)
        && let Some(cgroup) = open.cgroup
    {
        pause::arm(inner, entry, &cgroup, Moment::now()).await;
    }
    drop(turn);
}

/// The reason while somebody else has a sandbox's port.
pub(crate) const ADDRESS_LOST: &str = "AddressLost";
