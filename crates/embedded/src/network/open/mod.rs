//! Open networks: a pair of interfaces for each sandbox, and the machine as its router.

mod connector;
mod forwarding;
mod proof;
mod subnet;
mod turn;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::NetworkError;
use super::addressing::{Addresses, Names};
use super::error::Doing;
use super::facts;
use super::filter::{self, Filter, Sender};
use super::links;
use super::namespace::Made;
use super::netlink::Socket;
use super::policy::Hole;
use crate::settings::Subnet;

pub(crate) use connector::{Connector, Wired};
pub(crate) use watch::watch;

/// The longest packet where no route leads out that tells a better one.
const ETHERNET: u32 = 1500;

/// What all open networks of this machine share.
#[derive(Debug)]
pub(crate) struct Open {
    names: Names,
    addresses: Addresses,
    route: Socket,
    filter: Filter,
    mtu: u32,
    /// Whether forwarding was off before us.
    forwards: bool,
    /// The networks of sandboxes, by slot.
    attached: BTreeMap<u32, Attached>,
    /// What an earlier server left, by slot.
    left: BTreeMap<u32, Sender>,
}

/// The network of one sandbox.
#[derive(Debug)]
struct Attached {
    sender: Sender,
    holes: Vec<Hole>,
}

impl Open {
    /// Makes this machine a router for sandboxes. What an earlier server left is taken over.
    pub(crate) fn start(machine: &str, subnet: Option<Subnet>) -> Result<Self, NetworkError> {
        // First of all: who may change nothing needs no better range of addresses.
        facts::rights().map_err(NetworkError::Rights)?;
        let names = Names::new(machine);
        let mut route = Socket::route().doing(|| "open a netlink socket".to_owned())?;
        let turn = turn::take();
        let addresses = subnet::establish(&mut route, &names, subnet)?;
        drop(turn);
        let mut filter = Filter::install(names.clone(), addresses)
            .doing(|| format!("put the nf_tables table {} in place", names.table))?;
        let mtu = uplink_mtu(&mut route)?;
        let left = filter.admitted().doing(|| "list the sandboxes in the filter".to_owned())?;
        let left = left.into_iter().filter_map(|sender| Some((sender.slot?, sender))).collect();
        let mut open =
            Self { names, addresses, route, filter, mtu, forwards: false, attached: BTreeMap::new(), left };
        open.forwards = forwarding::switch_on(&mut open.filter, &open.names)?;
        Ok(open)
    }

    /// Proves with a connection that sandboxes get out; says what is in the way otherwise.
    pub(crate) fn prove(&mut self, probe: Made, outside: Made) -> Result<(), NetworkError> {
        proof::prove(self, probe, outside)
    }

    /// Whether an earlier server left sandboxes.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Something that connects namespaces, on its own.
    pub(crate) fn connector(&self) -> Result<Connector, NetworkError> {
        Connector::new(self.names.clone(), self.addresses, self.mtu)
    }

    /// What is not as it should be, and does not keep sandboxes from working.
    pub(crate) fn notices(&self) -> Vec<String> {
        let uncounted = (!self.filter.counts_connections).then(|| {
            "this kernel cannot count connections (CONFIG_NFT_CONNLIMIT): one sandbox can fill the connection table"
                .to_owned()
        });
        uncounted.into_iter().collect()
    }

    /// Where sandboxes ask for names.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.addresses.gateway()
    }

    /// The addresses of sandboxes.
    pub(crate) fn subnet(&self) -> Subnet {
        self.addresses.0
    }

    /// How many sandboxes there is room for.
    pub(crate) fn capacity(&self) -> u32 {
        self.addresses.capacity()
    }

    /// Makes a connected namespace that of the sandbox in a slot. From now on what it sends is passed on.
    pub(crate) fn attach(&mut self, slot: u32, wired: &Wired, holes: &[Hole]) -> Result<(), NetworkError> {
        // What was in the slot before must not be taken for this one after a crash.
        self.release(slot)?;
        // Whoever had the interface before is gone without having been released: its rights must not pass on.
        let earlier = self.attached.iter().map(|(slot, attached)| (slot, &attached.sender)).chain(&self.left);
        let earlier = earlier.filter(|(_, sender)| sender.interface == wired.interface);
        for (slot, sender) in earlier.map(|(slot, sender)| (*slot, sender.clone())).collect::<Vec<_>>() {
            self.filter
                .expel(&sender, None)
                .doing(|| format!("forget {} in the filter", sender.interface))?;
            self.attached.remove(&slot);
            self.left.remove(&slot);
        }
        let sender = Sender { interface: wired.interface.clone(), address: wired.address, slot: Some(slot) };
        self.admit(slot, sender, holes)
    }

    /// Takes over what an earlier server attached to a slot; `false` when it is not there any more.
    pub(crate) fn adopt(&mut self, slot: u32, holes: &[Hole]) -> Result<bool, NetworkError> {
        let Some(sender) = self.left.get(&slot).cloned() else { return Ok(false) };
        let name = &sender.interface;
        if links::index(&mut self.route, name).doing(|| format!("look for {name}"))?.is_none() {
            return Ok(false);
        }
        self.admit(slot, sender, holes)?;
        self.left.remove(&slot);
        Ok(true)
    }

    fn admit(&mut self, slot: u32, sender: Sender, holes: &[Hole]) -> Result<(), NetworkError> {
        self.filter.admit(&sender, holes).doing(|| format!("let {} send", sender.interface))?;
        self.attached.insert(slot, Attached { sender, holes: holes.to_vec() });
        Ok(())
    }

    /// Puts the filter back after somebody removed it, with everybody in it whom we know. Whoever was left by an
    /// earlier server and not adopted yet gets no holes.
    fn restore(&mut self) -> Result<(), NetworkError> {
        let table = &self.names.table;
        self.filter = Filter::install(self.names.clone(), self.addresses)
            .doing(|| format!("put the nf_tables table {table} back in place"))?;
        let attached = self.attached.values().map(|attached| (&attached.sender, attached.holes.as_slice()));
        let left = self.left.values().map(|sender| (sender, [].as_slice()));
        for (sender, holes) in attached.chain(left) {
            self.filter.admit(sender, holes).doing(|| format!("let {} send", sender.interface))?;
        }
        // The note that forwarding was off was in the table. It is on now, and may have been ours: what is
        // removed is not forgotten.
        if self.forwards {
            self.filter.note_forwarding().doing(|| "note that forwarding was off".to_owned())
        } else {
            Ok(())
        }
    }

    /// Takes the network of a slot away; one that has none is done already.
    ///
    /// What the sandbox sends is dropped from now on. Its interface ends with its namespace: the kernel removes
    /// many at once that way, and removing one takes it 20 ms in which no other can be made.
    pub(crate) fn release(&mut self, slot: u32) -> Result<(), NetworkError> {
        if let Some(sender) = self.left.remove(&slot) {
            self.remove(&sender)?;
        }
        let Some(Attached { sender, holes }) = self.attached.remove(&slot) else { return Ok(()) };
        self.filter
            .expel(&sender, Some(&holes))
            .doing(|| format!("forget {} in the filter", sender.interface))
    }

    /// Removes what belongs to none of these slots; how many sandboxes that were.
    ///
    /// An interface that is in no element of the filter is nobody's yet: kept ready by us, or gone as soon as
    /// the process is that kept it.
    pub(crate) fn sweep(&mut self, live: &BTreeSet<u32>) -> Result<usize, NetworkError> {
        self.left.retain(|slot, _| live.contains(slot));
        self.attached.retain(|slot, _| live.contains(slot));
        let mut dead = self.filter.admitted().doing(|| "list the sandboxes in the filter".to_owned())?;
        dead.retain(|sender| sender.slot.is_none_or(|slot| !live.contains(&slot)));
        for sender in &dead {
            self.remove(sender)?;
        }
        Ok(dead.len())
    }

    /// Removes an interface and all that it was let do.
    fn remove(&mut self, sender: &Sender) -> Result<(), NetworkError> {
        let name = &sender.interface;
        // The interface first: while it is in the filter, it is found again after a crash.
        links::remove(&mut self.route, name).doing(|| format!("remove the interface {name}"))?;
        self.filter.expel(sender, None).doing(|| format!("forget {name} in the filter"))
    }
}

/// Removes everything of a machine's open networks from the kernel. Sandboxes that still run are cut off.
pub(crate) fn down(machine: &str) -> Result<(), NetworkError> {
    let names = Names::new(machine);
    let mut route = Socket::route().doing(|| "open a netlink socket".to_owned())?;
    let links = links::all(&mut route).doing(|| "list the interfaces".to_owned())?;
    for link in links {
        if names.seat(&link.name).is_some() || link.name == names.outside() {
            links::remove(&mut route, &link.name).doing(|| format!("remove the interface {}", link.name))?;
        }
    }
    subnet::remove(&mut route, &names)?;
    forwarding::restore(&names)?;
    filter::remove(&names).doing(|| format!("remove the nf_tables table {}", names.table))
}

/// Whether an earlier server left open networks.
pub(crate) fn left_behind(machine: &str) -> Result<bool, NetworkError> {
    let [gateway, _] = Names::new(machine).gateway();
    let found = Socket::route().and_then(|mut route| links::index(&mut route, &gateway));
    Ok(found.doing(|| format!("look for {gateway}"))?.is_some())
}

/// The longest packet on the way out: sandboxes send no longer ones, so that nothing has to be cut on the way.
fn uplink_mtu(route: &mut Socket) -> Result<u32, NetworkError> {
    let routes = links::routes(route).doing(|| "list the routes".to_owned())?;
    let out = routes.iter().find(|route| route.prefix == 0).and_then(|route| route.interface);
    let links = links::all(route).doing(|| "list the interfaces".to_owned())?;
    let mtu = links.iter().find(|link| Some(link.index) == out).map(|link| link.mtu);
    // Below 1280 even IPv6 would not work; such an interface tells nothing of use.
    Ok(mtu.filter(|mtu| *mtu >= 1280).unwrap_or(ETHERNET).min(ETHERNET))
}
