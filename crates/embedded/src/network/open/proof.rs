//! Proof that sandboxes get out: a connection through this machine, from a namespace like a sandbox's to one
//! that stands for the outside.
//!
//! An accept in our table does not undo a drop in another (Docker and ufw drop what passes through by
//! default), and no list of rules tells what a packet will meet. So one is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Open, Wired};
use crate::network::NetworkError;
use crate::network::error::Doing;
use crate::network::filter::{self, Sender};
use crate::network::links;
use crate::network::namespace::{Made, inside};

/// How long a connection within this machine may take: a first packet that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(2500);
const DNS: u16 = 53;

pub(super) fn prove(open: &mut Open, probe: Made, mut outside: Made) -> Result<(), NetworkError> {
    let mut connector = open.connector()?;
    let wired = connector.connect_probe(probe)?;
    let there = open.names.outside();
    let proven = connector
        .connect_as(&there, open.addresses.outside(), &mut outside)
        .and_then(|()| attempt(open, &wired, &outside));
    let tidied = links::remove(&mut open.route, &there).doing(|| format!("remove the interface {there}"));
    let removed = open.remove(&sender(&wired));
    proven.and(tidied).and(removed)
}

fn attempt(open: &mut Open, wired: &Wired, outside: &Made) -> Result<(), NetworkError> {
    let Wired { interface, made: probe, .. } = wired;
    open.filter.admit(&sender(wired), &[]).doing(|| format!("let {interface} send"))?;
    let there = open.addresses.outside();
    let listener =
        inside(&outside.namespace, move || TcpListener::bind((there, 0)))?.map_err(NetworkError::Probe)?;
    let target = listener.local_addr().map_err(NetworkError::Probe)?;
    reach(probe, target).map_err(|source| NetworkError::NotForwarded { remedy: forwarded(open), source })?;
    name_queries(open, probe)
}

fn sender(wired: &Wired) -> Sender {
    Sender { interface: wired.interface.clone(), address: wired.address, slot: None }
}

/// Sandboxes reach the port for names on the gateway. Whoever answers there already proves it as well.
fn name_queries(open: &Open, probe: &Made) -> Result<(), NetworkError> {
    let gateway = SocketAddr::from((open.gateway(), DNS));
    let ours = match TcpListener::bind(gateway) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) => return Err(NetworkError::Probe(error)),
    };
    let reached = reach(probe, gateway);
    drop(ours);
    reached.map_err(|source| NetworkError::NamesBlocked { remedy: received(open, open.gateway()), source })
}

fn reach(probe: &Made, target: SocketAddr) -> io::Result<()> {
    inside(&probe.namespace, move || TcpStream::connect_timeout(&target, PATIENCE).map(drop))
        .map_err(io::Error::other)?
}

fn forwarded(open: &Open) -> String {
    let prefix = open.names.prefix();
    let suspects = filter::foreign_drops(&open.names, filter::FORWARD);
    // Docker leaves this chain to the machine's owner, and keeps it across restarts.
    let docker = suspects.iter().any(|chain| chain.contains("table ip filter"));
    let chain = if docker && filter::has_chain("DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
    let allow = format!(
        "allow what comes from and goes to our interfaces: `iptables -I {chain} -i {prefix}+ -j ACCEPT` and \
         `iptables -I {chain} -o {prefix}+ -j ACCEPT`",
    );
    format!("{}{allow}", blame(&suspects))
}

fn received(open: &Open, gateway: Ipv4Addr) -> String {
    let prefix = open.names.prefix();
    let suspects = filter::foreign_drops(&open.names, filter::INPUT);
    format!(
        "{}allow name queries from our interfaces: `iptables -I INPUT -i {prefix}+ -d {gateway} -p udp --dport 53 \
         -j ACCEPT` and the same with `-p tcp`",
        blame(&suspects)
    )
}

fn blame(suspects: &[String]) -> String {
    if suspects.is_empty() { String::new() } else { format!("{} drops by default; ", suspects.join(" and ")) }
}
