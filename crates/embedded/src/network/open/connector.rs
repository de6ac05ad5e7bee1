//! A pair of interfaces between the machine and a namespace, and the routes between them.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use crate::network::NetworkError;
use crate::network::addressing::{Addresses, INSIDE, Names, Seat, hardware};
use crate::network::error::Doing;
use crate::network::links::{self, Veth};
use crate::network::namespace::Made;
use crate::network::netlink::{NetlinkError, Socket};

/// Gives namespaces their interfaces. The machine's own kernel tables are its only memory of what is taken.
#[derive(Debug)]
pub(crate) struct Connector {
    names: Names,
    addresses: Addresses,
    route: Socket,
    /// The longest packet, in bytes.
    mtu: u32,
    /// The next number to try: numbers come round, so that an address rests before another sandbox gets it.
    next: u32,
}

/// A namespace with its way out, not yet any sandbox's: what it sends is dropped.
#[derive(Debug)]
pub(crate) struct Wired {
    pub(crate) made: Made,
    /// The machine's end.
    pub(crate) interface: String,
    pub(crate) address: Ipv4Addr,
}

impl Connector {
    pub(crate) fn new(names: Names, addresses: Addresses, mtu: u32) -> Result<Self, NetworkError> {
        let mut route = Socket::route().doing(|| "open a netlink socket".to_owned())?;
        let links = links::all(&mut route).doing(|| "list the interfaces".to_owned())?;
        let taken = links.iter().filter_map(|link| match names.seat(&link.name)? {
            Seat::Sandbox(number) => Some(number),
            Seat::Probe => None,
        });
        let next = taken.max().map_or(0, |number| number + 1);
        Ok(Self { names, addresses, route, mtu, next })
    }

    /// Connects a namespace in the next free seat.
    pub(crate) fn connect_next(&mut self, mut made: Made) -> Result<Wired, NetworkError> {
        let capacity = self.addresses.capacity();
        for _ in 0..capacity {
            let number = self.next % capacity;
            self.next = number + 1;
            if let Some(wired) = self.try_seat(Seat::Sandbox(number), &mut made)? {
                let (interface, address) = wired;
                return Ok(Wired { made, interface, address });
            }
        }
        Err(self.full())
    }

    /// Connects a namespace that was connected before, in the next free seat.
    pub(crate) fn connect_again(&mut self, mut made: Made) -> Result<Wired, NetworkError> {
        let doing = || format!("remove {INSIDE} from a sandbox that is to get another");
        links::remove(&mut made.route, INSIDE).doing(doing)?;
        self.connect_next(made)
    }

    /// Connects a namespace in the seat that is for proofs. What an earlier proof left is removed.
    pub(crate) fn connect_probe(&mut self, mut made: Made) -> Result<Wired, NetworkError> {
        let name = self.names.interface(Seat::Probe);
        links::remove(&mut self.route, &name).doing(|| format!("remove the interface {name}"))?;
        let (interface, address) =
            self.try_seat(Seat::Probe, &mut made)?.ok_or(NetworkError::Vanished(name))?;
        Ok(Wired { made, interface, address })
    }

    /// Connects a namespace under a name and with an address of the caller's choice.
    pub(crate) fn connect_as(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        made: &mut Made,
    ) -> Result<(), NetworkError> {
        links::remove(&mut self.route, name).doing(|| format!("remove the interface {name}"))?;
        self.pair(name, address, made).doing(|| format!("make the interface {name}"))?;
        self.wire(name, address, made)
    }

    fn full(&self) -> NetworkError {
        NetworkError::Full { subnet: self.addresses.0, capacity: self.addresses.capacity() }
    }

    /// `None` when the seat is taken.
    fn try_seat(&mut self, seat: Seat, made: &mut Made) -> Result<Option<(String, Ipv4Addr)>, NetworkError> {
        let address = self.addresses.address(seat).ok_or_else(|| self.full())?;
        let name = self.names.interface(seat);
        match self.pair(&name, address, made) {
            Err(error) if error.errno() == Some(libc::EEXIST) => return Ok(None),
            other => other.doing(|| format!("make the interface {name}"))?,
        }
        let wired = self.wire(&name, address, made);
        if wired.is_err() {
            // The first failure is the one to tell; the namespace takes the rest with it when it ends.
            let _ = links::remove(&mut self.route, &name);
        }
        wired?;
        Ok(Some((name, address)))
    }

    fn pair(&mut self, name: &str, address: Ipv4Addr, made: &Made) -> Result<(), NetlinkError> {
        let ends = hardware(address);
        let namespace = Some(made.namespace.as_fd());
        links::add_veth(&mut self.route, &Veth { name, peer: INSIDE, namespace, ends, mtu: self.mtu })
    }

    /// Routes in both directions.
    fn wire(&mut self, name: &str, address: Ipv4Addr, made: &mut Made) -> Result<(), NetworkError> {
        let ends = hardware(address);
        let gateway = self.addresses.gateway();
        let outer = &mut self.route;
        let outer_index = links::index(outer, name).doing(|| format!("look for {name}"))?;
        let outer_index = outer_index.ok_or_else(|| NetworkError::Vanished(name.to_owned()))?;
        let wired = links::up_quiet(outer, outer_index)
            .and_then(|()| links::add_host_route(outer, outer_index, address, Some(gateway)))
            .and_then(|()| links::add_neighbour(outer, outer_index, address, ends.sandbox));
        wired.doing(|| format!("lead {address} into {name}"))?;

        let inner = &mut made.route;
        let index = links::index(inner, INSIDE).doing(|| format!("look for {INSIDE} in the sandbox"))?;
        let index = index.ok_or_else(|| NetworkError::Vanished(INSIDE.to_owned()))?;
        let wired = links::add_address(inner, index, address, 32)
            .and_then(|()| links::up_quiet(inner, index))
            .and_then(|()| links::add_host_route(inner, index, gateway, None))
            .and_then(|()| links::add_default_route(inner, index, gateway))
            .and_then(|()| links::add_neighbour(inner, index, gateway, ends.machine));
        wired.doing(|| format!("set up {INSIDE} inside the sandbox with {address}"))?;
        links::settle(outer, outer_index).doing(|| format!("wait for {name}"))
    }
}
