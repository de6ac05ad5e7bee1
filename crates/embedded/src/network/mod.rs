//! The networks of sandboxes: a namespace each, and for open ones a way out.
//!
//! ```text
//!   isolated                     open
//!   ┌─ sandbox ──┐               ┌─ sandbox ─────────────┐
//!   │ lo         │               │ lo   eth0 10.x.y.z/32 │
//!   └────────────┘               └───────┬───────────────┘
//!                                        │ veth, no bridge: a route of one address each way
//!                                ┌───────┴─── machine ───────────────────────────────────┐
//!                                │ table inet stockade-MACHINE: who may send what where  │
//!                                └───────┬───────────────────────────────────────────────┘
//!                                        └─ masquerade ─► the internet
//! ```
//!
//! Nothing is remembered anywhere but in the kernel: interfaces, addresses and elements of sets follow from
//! the machine's name and the sandbox's slot ([`addressing`]). So a server that was killed leaves nothing that
//! the next one does not find, and running sandboxes keep their networks while there is none.

mod addressing;
pub mod dns;
mod error;
mod facts;
mod filter;
mod links;
mod namespace;
mod netlink;
mod open;
mod policy;
mod pool;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use stockade_core::egress::{EgressPolicy, NetworkMode};
use tokio::sync::OnceCell;

pub use error::NetworkError;
pub use facts::{NetFacts, probe};
pub use namespace::of_process;
pub use netlink::NetlinkError;
pub(crate) use policy::resolve;
pub use policy::{Hole, MAX_HOLES, PolicyError, ResolvedPolicy};

use crate::settings::Subnet;
use error::with_sources;
use namespace::Made;
use open::{Open, Wired};
use pool::Pool;

/// How networks are made.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// The name of this machine among those that share a kernel: what is ours in it carries this name.
    pub machine: String,
    /// The addresses of sandboxes in open networks; `None` takes a range that nothing here uses.
    pub subnet: Option<Subnet>,
    /// What a sandbox reaches whose request does not say; `None`: open where the machine lets us.
    pub default_mode: Option<NetworkMode>,
    /// How many namespaces are kept ready.
    pub ready: usize,
}

impl NetworkOptions {
    /// How many namespaces are kept ready unless told otherwise: what a burst of creates takes in the time it
    /// takes to make the next ones, at about a third of a megabyte each.
    pub const READY: usize = 16;
}

/// The networks of one machine.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    isolated: Pool<Made>,
    /// Made when it is first needed, so that a machine that wants none of it is not made a router.
    open: OnceCell<Result<Shared, Closed>>,
}

/// Open networks, and some that are ready.
#[derive(Debug, Clone)]
struct Shared {
    open: Arc<Mutex<Open>>,
    ready: Arc<Pool<Wired>>,
}

/// Why there are no open networks here.
#[derive(Debug, Clone)]
struct Closed(String);

/// The network of one sandbox, ready for its processes.
#[derive(Debug)]
pub struct Prepared {
    /// Its namespace.
    pub netns: OwnedFd,
    /// Its name server; `None` leaves names unresolved.
    pub name_server: Option<IpAddr>,
    /// What it got differently from what it asked for, for its `message`.
    pub messages: Vec<String>,
}

impl Network {
    /// Gets ready to make networks.
    ///
    /// # Errors
    /// When this machine gives us no network namespaces: then there are no sandboxes here. When a range of
    /// addresses was set that cannot be used.
    pub async fn start(options: NetworkOptions) -> Result<Self, NetworkError> {
        let isolated = Pool::start(options.ready, |made| {
            made.warn_of_settings();
            Ok(made)
        })?;
        let network = Self { options, isolated, open: OnceCell::new() };
        if network.options.default_mode != Some(NetworkMode::Isolated) {
            // Why there are none is for those who ask for one.
            let _ = network.open_networks().await?;
        }
        Ok(network)
    }

    /// What a sandbox with this policy gets.
    ///
    /// # Errors
    /// When the policy asks for what there is not, or contradicts itself.
    pub fn resolve(&self, policy: &EgressPolicy) -> Result<ResolvedPolicy, PolicyError> {
        let best =
            if matches!(self.open.get(), Some(Ok(_))) { NetworkMode::Open } else { NetworkMode::Isolated };
        policy::resolve(policy, self.options.default_mode.unwrap_or(best))
    }

    /// Why sandboxes cannot have open networks here; `None` when they can, or when nobody asked yet.
    #[must_use]
    pub fn closed(&self) -> Option<&str> {
        match self.open.get() {
            Some(Err(Closed(why))) => Some(why),
            _ => None,
        }
    }

    /// What is not as it should be with open networks, though they work.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.opened().map(|shared| shared.open.lock().notices()).unwrap_or_default()
    }

    /// Where sandboxes of open networks ask for names: a forwarder has to listen there ([`dns`]). `None` while
    /// there are no open networks.
    #[must_use]
    pub fn name_server(&self) -> Option<IpAddr> {
        self.opened().map(|shared| shared.open.lock().gateway().into())
    }

    /// The addresses of sandboxes in open networks, and how many there are; `None` while there are none.
    #[must_use]
    pub fn subnet(&self) -> Option<(Subnet, u32)> {
        self.opened().map(|shared| {
            let open = shared.open.lock();
            (open.subnet(), open.capacity())
        })
    }

    /// Makes the network of the sandbox in a slot. Where there are no open networks it is isolated, and says so.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left then.
    pub async fn prepare(&self, slot: u32, policy: &ResolvedPolicy) -> Result<Prepared, NetworkError> {
        let mut messages = Vec::new();
        if let ResolvedPolicy::Open(holes) = policy {
            match self.open_networks().await? {
                Ok(shared) => return shared.prepare(slot, holes.clone()).await,
                Err(Closed(why)) => messages.push(format!("the network is isolated: {why}")),
            }
        }
        let made = self.isolated.take().await?;
        Ok(Prepared { netns: made.namespace, name_server: None, messages })
    }

    /// Takes the network of a slot away. The namespace itself ends with its last descriptor and process.
    ///
    /// # Errors
    /// When the kernel refuses; [`Network::sweep`] tries again.
    pub async fn release(&self, slot: u32) -> Result<(), NetworkError> {
        let Some(shared) = self.opened() else { return Ok(()) };
        shared.blocking(move |open| open.release(slot)).await?
    }

    /// Takes over the network of a sandbox that an earlier server made and whose processes run in `netns`.
    /// What is missing of it is made again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn adopt(
        &self,
        slot: u32,
        policy: &ResolvedPolicy,
        netns: OwnedFd,
    ) -> Result<(), NetworkError> {
        let ResolvedPolicy::Open(holes) = policy else { return Ok(()) };
        let holes = holes.clone();
        match self.open_networks().await? {
            Ok(shared) => {
                let adopt = move |open: &mut Open| {
                    if open.adopt(slot, &holes)? {
                        return Ok(());
                    }
                    let wired = open.connector()?.connect_again(Made::from_existing(netns)?)?;
                    open.attach(slot, &wired, &holes)
                };
                shared.blocking(adopt).await?
            }
            // It keeps what it has, and gets no more.
            Err(Closed(why)) => {
                tracing::warn!(slot, why, "a sandbox with an open network is cut off");
                Ok(())
            }
        }
    }

    /// Removes what belongs to none of these slots; how many interfaces that were.
    ///
    /// # Errors
    /// When the kernel refuses; what comes after is left for the next time.
    pub async fn sweep(&self, live: BTreeSet<u32>) -> Result<usize, NetworkError> {
        let shared = match self.opened() {
            Some(shared) => shared.clone(),
            // An earlier server had open networks, and none of its sandboxes is left to say so.
            None if open::left_behind(&self.options.machine)? => match self.open_networks().await? {
                Ok(shared) => shared,
                Err(Closed(_)) => return Ok(0),
            },
            None => return Ok(0),
        };
        shared.blocking(move |open| open.sweep(&live)).await?
    }

    fn opened(&self) -> Option<&Shared> {
        self.open.get()?.as_ref().ok()
    }

    /// The machine as a router, made at the first call. What was set wrongly fails; what the machine lacks
    /// closes open networks.
    async fn open_networks(&self) -> Result<Result<Shared, Closed>, NetworkError> {
        let open = self.open.get_or_try_init(|| self.make_open_networks()).await?;
        Ok(open.clone())
    }

    async fn make_open_networks(&self) -> Result<Result<Shared, Closed>, NetworkError> {
        let (machine, subnet) = (self.options.machine.clone(), self.options.subnet);
        let (probe, outside) = (self.isolated.take().await?, self.isolated.take().await?);
        let ready = self.options.ready;
        let started = tokio::task::spawn_blocking(move || {
            let mut open = Open::start(&machine, subnet)?;
            if let Err(error) = open.prove(probe, outside) {
                if !open.has_left() {
                    // Nobody uses what was made for nothing.
                    open::down(&machine)?;
                }
                return Err(error);
            }
            let mut connector = open.connector()?;
            let ready = Pool::start(ready, move |made| connector.connect_next(made))?;
            let open = Arc::new(Mutex::new(open));
            open::watch(&open)?;
            Ok(Shared { open, ready: Arc::new(ready) })
        });
        match started.await.map_err(|_| NetworkError::Ended)? {
            Ok(shared) => Ok(Ok(shared)),
            Err(error @ (NetworkError::Clash { .. } | NetworkError::SubnetInUse { .. })) => Err(error),
            Err(error) => {
                let why = with_sources(&error);
                tracing::warn!(why, "no open networks: sandboxes are isolated");
                Ok(Err(Closed(why)))
            }
        }
    }
}

/// Removes everything of a machine's networks from the kernel, and restores what was changed. Sandboxes that
/// still run are cut off. Needs no [`Network`], and there must be none: it would put its filter back.
///
/// # Errors
/// When the kernel refuses; it may be repeated.
pub fn down(machine: &str) -> Result<(), NetworkError> {
    open::down(machine)
}

impl Shared {
    async fn prepare(&self, slot: u32, holes: Vec<Hole>) -> Result<Prepared, NetworkError> {
        let wired = self.ready.take().await?;
        let attach = move |open: &mut Open| {
            open.attach(slot, &wired, &holes)?;
            Ok(Prepared {
                netns: wired.made.namespace,
                name_server: Some(open.gateway().into()),
                messages: Vec::new(),
            })
        };
        self.blocking(attach).await?
    }

    /// Asks the kernel away from the threads that serve callers: an answer can take milliseconds.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Open) -> T + Send + 'static,
    ) -> Result<T, NetworkError> {
        let open = self.open.clone();
        tokio::task::spawn_blocking(move || act(&mut open.lock())).await.map_err(|_| NetworkError::Ended)
    }
}

#[cfg(test)]
mod tests;
