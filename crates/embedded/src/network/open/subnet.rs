//! Which addresses sandboxes have, and the interface that holds the gateway's.

use std::net::Ipv4Addr;

use crate::network::NetworkError;
use crate::network::addressing::{Addresses, Names, hardware};
use crate::network::error::Doing;
use crate::network::links::{self, Link, Route, Veth};
use crate::network::netlink::Socket;
use crate::settings::Subnet;

/// Ranges that are tried in this order when none is set. None is a default of Docker, Kubernetes, libvirt,
/// a home router, a cloud's network, Tailscale, or of proxies that give out addresses of their own.
const CANDIDATES: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 213, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(10, 87, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 208, 0), 20),
];
/// And then 10.214.0.0/16 to this one: every state directory on a machine takes a range of its own.
const LAST_CANDIDATE: u8 = 239;

fn candidates() -> impl Iterator<Item = Subnet> {
    let more = (214..=LAST_CANDIDATE).map(|second| (Ipv4Addr::new(10, second, 0, 0), 16));
    CANDIDATES.into_iter().chain(more).filter_map(|(first, prefix)| Subnet::new(first, prefix))
}

/// Routes that are this wide lead to everything, and clash with nothing.
const EVERYTHING: u8 = 1;
/// Too small to matter: nothing is ever sent there.
const GATEWAY_MTU: u32 = 1500;

/// Takes the range of an earlier server, the one that is set, or one that nothing here uses.
pub(super) fn establish(
    route: &mut Socket,
    names: &Names,
    wanted: Option<Subnet>,
) -> Result<Addresses, NetworkError> {
    if let Some(found) = existing(route, names)? {
        if wanted.is_none_or(|wanted| wanted == found) {
            claim(route, names, found)?;
            return Ok(Addresses(found));
        }
        if has_sandboxes(route, names)? {
            return Err(NetworkError::SubnetInUse { found, wanted: wanted.unwrap_or(found) });
        }
        remove(route, names)?;
    }
    if let Some(wanted) = wanted {
        if let Some(clash) = clash(route, wanted)? {
            return Err(NetworkError::Clash { subnet: wanted, clash });
        }
        claim(route, names, wanted)?;
        return Ok(Addresses(wanted));
    }
    for subnet in candidates() {
        if clash(route, subnet)?.is_none() {
            claim(route, names, subnet)?;
            return Ok(Addresses(subnet));
        }
    }
    Err(NetworkError::NoSubnet)
}

/// Removes the gateway and the claim on its range.
pub(super) fn remove(route: &mut Socket, names: &Names) -> Result<(), NetworkError> {
    if let Some(found) = existing(route, names)? {
        links::remove_unreachable(route, found.address(), found.prefix())
            .doing(|| format!("take back the route for {found}"))?;
    }
    let [name, _] = names.gateway();
    links::remove(route, &name).doing(|| format!("remove the interface {name}"))
}

/// The range of the gateway that is there.
fn existing(route: &mut Socket, names: &Names) -> Result<Option<Subnet>, NetworkError> {
    let [name, _] = names.gateway();
    let doing = || format!("read the address of {name}");
    let Some(index) = links::index(route, &name).doing(doing)? else { return Ok(None) };
    let found = links::address_of(route, index).doing(doing)?;
    Ok(found.and_then(|(gateway, prefix)| {
        let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        Subnet::new(Ipv4Addr::from_bits(gateway.to_bits() & !rest), prefix)
    }))
}

fn has_sandboxes(route: &mut Socket, names: &Names) -> Result<bool, NetworkError> {
    let links = links::all(route).doing(|| "list the interfaces".to_owned())?;
    Ok(links.iter().any(|link| names.seat(&link.name).is_some()))
}

/// Makes the gateway. A range is claimed by a route that leads nowhere: addresses of sandboxes that are gone
/// must not leave the machine by its default route. What is there already is kept.
fn claim(route: &mut Socket, names: &Names, subnet: Subnet) -> Result<(), NetworkError> {
    let [name, peer] = names.gateway();
    let doing = || format!("make the gateway of {subnet} on {name}");
    let gateway = Addresses(subnet).gateway();
    if links::index(route, &name).doing(doing)?.is_none() {
        let ends = hardware(gateway);
        let veth = Veth { name: &name, peer: &peer, namespace: None, ends, mtu: GATEWAY_MTU };
        links::add_veth(route, &veth).doing(doing)?;
    }
    for name in [&name, &peer] {
        let index =
            links::index(route, name).doing(doing)?.ok_or_else(|| NetworkError::Vanished(name.clone()))?;
        if *name != peer {
            links::add_address(route, index, gateway, subnet.prefix()).doing(doing)?;
        }
        links::up_quiet(route, index).doing(doing)?;
    }
    match links::add_unreachable(route, subnet.address(), subnet.prefix()) {
        Err(error) if error.errno() != Some(libc::EEXIST) => Err(error).doing(doing),
        _ => Ok(()),
    }
}

/// What uses addresses of a range already, in words.
fn clash(route: &mut Socket, subnet: Subnet) -> Result<Option<String>, NetworkError> {
    let routes = links::routes(route).doing(|| "list the routes".to_owned())?;
    let links = links::all(route).doing(|| "list the interfaces".to_owned())?;
    Ok(routes.iter().find(|route| overlaps(route, subnet)).map(|route| name(route, &links)))
}

fn overlaps(route: &Route, subnet: Subnet) -> bool {
    let prefix = route.prefix.min(subnet.prefix());
    let mask = !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    route.prefix > EVERYTHING && (route.first.to_bits() ^ subnet.address().to_bits()) & mask == 0
}

fn name(route: &Route, links: &[Link]) -> String {
    let link = route.interface.and_then(|index| links.iter().find(|link| link.index == index));
    let through = link.map(|link| format!(" through {}", link.name)).unwrap_or_default();
    format!("{}/{}{through}", route.first, route.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_range_for_each_of_many_servers() {
        let all: Vec<Subnet> = candidates().collect();
        assert_eq!(all.len(), 30);
        for (at, one) in all.iter().enumerate() {
            let route = Route { first: one.address(), prefix: one.prefix(), interface: None };
            assert!(all[at + 1..].iter().all(|other| !overlaps(&route, *other)), "{one}");
        }
    }

    #[test]
    fn a_route_clashes_when_it_shares_an_address() {
        let check = |first: &str, prefix, subnet: &str, expect| {
            let route = Route { first: first.parse().unwrap(), prefix, interface: None };
            assert_eq!(overlaps(&route, subnet.parse().unwrap()), expect, "{first}/{prefix} {subnet}");
        };
        check("10.0.0.0", 8, "10.213.0.0/16", true);
        check("10.213.7.0", 24, "10.213.0.0/16", true);
        check("10.213.7.9", 32, "10.213.0.0/16", true);
        check("10.214.0.0", 16, "10.213.0.0/16", false);
        check("0.0.0.0", 0, "10.213.0.0/16", false);
        check("0.0.0.0", 1, "10.213.0.0/16", false);
        check("192.168.1.0", 24, "10.213.0.0/16", false);
    }
}
