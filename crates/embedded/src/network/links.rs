//! Links, addresses, routes and neighbours: one function for each request to the kernel.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::addressing::Ends;
use super::netlink::{Attributes, NetlinkError, Request, Socket, WithAttributes, attributes, find};

const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// No IPv6 address comes into being by itself.
const ADDR_GEN_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// The address brings no route with it.
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const SCOPE_LINK: u8 = 253;
const SCOPE_UNIVERSE: u8 = 0;
const TABLE_MAIN: u8 = 254;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;
/// Who made a route, as `ip route` shows it: ours (an unassigned number).
pub(crate) const PROTOCOL: u8 = 83;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;

/// One end of a pair of interfaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Veth<'a> {
    /// The machine's end.
    pub(crate) name: &'a str,
    /// The other end.
    pub(crate) peer: &'a str,
    /// Where the other end is; `None`: with the first.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
    pub(crate) ends: Ends,
    /// The longest packet, in bytes.
    pub(crate) mtu: u32,
}

/// Makes a pair of interfaces; fails when one of its names is taken.
pub(crate) fn add_veth(route: &mut Socket, veth: &Veth<'_>) -> Result<(), NetlinkError> {
    let mut peer = Attributes::after(&link(0, 0, 0))
        .text(IFLA_IFNAME, veth.peer)
        .attribute(IFLA_ADDRESS, &veth.ends.sandbox)
        .number(IFLA_MTU, veth.mtu);
    if let Some(namespace) = veth.namespace {
        peer = peer.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
    let kind = Attributes::new()
        .attribute(IFLA_INFO_KIND, b"veth")
        .nested(IFLA_INFO_DATA, &Attributes::new().nested(VETH_INFO_PEER, &peer));
    let request = Request::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &link(0, 0, 0))
        .text(IFLA_IFNAME, veth.name)
        .attribute(IFLA_ADDRESS, &veth.ends.machine)
        .number(IFLA_MTU, veth.mtu)
        .nested(IFLA_LINKINFO, &kind);
    route.request(request)
}

/// Removes an interface and its other end; one that is not there is removed already.
pub(crate) fn remove(route: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let request = Request::new(libc::RTM_DELLINK, 0, &link(0, 0, 0)).text(IFLA_IFNAME, name);
    gone(route.request(request), libc::ENODEV)
}

/// The number of an interface.
pub(crate) fn index(route: &mut Socket, name: &str) -> Result<Option<i32>, NetlinkError> {
    let request = Request::new(libc::RTM_GETLINK, 0, &link(0, 0, 0)).text(IFLA_IFNAME, name);
    match route.get(&request) {
        Ok(body) => Ok(body.get(4..8).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)))),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Switches an interface on that neither asks for nor tells hardware addresses and has no IPv6 address.
pub(crate) fn up_quiet(route: &mut Socket, interface: i32) -> Result<(), NetlinkError> {
    let none = Attributes::new().attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
    let silent = Request::new(libc::RTM_NEWLINK, 0, &link(interface, 0, 0))
        .nested(IFLA_AF_SPEC, &Attributes::new().nested(AF_INET6, &none));
    // Before it is on: then would be too late. A kernel without IPv6 does not know the setting.
    gone(route.request(silent), libc::EAFNOSUPPORT)?;
    let flags = flags(libc::IFF_UP | libc::IFF_NOARP);
    route.request(Request::new(libc::RTM_NEWLINK, 0, &link(interface, flags, flags)))
}

/// Waits until an interface that is on really sends. The end of a pair that was switched on first learns by a
/// task of the kernel's that the other end is there, and drops what is sent before; asking for it brings it
/// about at once (since Linux 6.8; before, the task is merely quick).
pub(crate) fn settle(route: &mut Socket, interface: i32) -> Result<(), NetlinkError> {
    route.get(&Request::new(libc::RTM_GETLINK, 0, &link(interface, 0, 0))).map(drop)
}

/// Gives an interface an address of a range, without a route to the range.
pub(crate) fn add_address(
    route: &mut Socket,
    interface: i32,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), NetlinkError> {
    let mut header = [0; 8];
    header[0] = AF_INET;
    header[1] = prefix;
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWADDR, CREATE | REPLACE, &header)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
        .number(IFA_FLAGS, IFA_F_NOPREFIXROUTE);
    route.request(request)
}

/// The IPv4 address of an interface and the length of its prefix.
pub(crate) fn address_of(route: &mut Socket, interface: i32) -> Result<Option<(Ipv4Addr, u8)>, NetlinkError> {
    let mut header = [0; 8];
    header[0] = AF_INET;
    let all = route.dump(&Request::new(libc::RTM_GETADDR, 0, &header))?;
    Ok(all.iter().find_map(|body| {
        (body.get(4..8)? == interface.to_ne_bytes()).then_some(())?;
        Some((address(find(body.get(8..)?, IFA_LOCAL)?)?, *body.get(1)?))
    }))
}

/// Leads one address into an interface; what the machine sends there comes from `source`.
pub(crate) fn add_host_route(
    route: &mut Socket,
    interface: i32,
    to: Ipv4Addr,
    source: Option<Ipv4Addr>,
) -> Result<(), NetlinkError> {
    let mut request =
        Request::new(libc::RTM_NEWROUTE, CREATE | REPLACE, &route_header(32, SCOPE_LINK, UNICAST))
            .attribute(RTA_DST, &to.octets())
            .attribute(RTA_OIF, &interface.to_ne_bytes());
    if let Some(source) = source {
        request = request.attribute(RTA_PREFSRC, &source.octets());
    }
    route.request(request)
}

/// Leads everything else through a gateway.
pub(crate) fn add_default_route(
    route: &mut Socket,
    interface: i32,
    gateway: Ipv4Addr,
) -> Result<(), NetlinkError> {
    let request =
        Request::new(libc::RTM_NEWROUTE, CREATE | REPLACE, &route_header(0, SCOPE_UNIVERSE, UNICAST))
            .attribute(RTA_GATEWAY, &gateway.octets())
            .attribute(RTA_OIF, &interface.to_ne_bytes());
    route.request(request)
}

/// Keeps a range from leaving the machine by another route; fails when there is such a route already.
pub(crate) fn add_unreachable(route: &mut Socket, first: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
    let header = route_header(prefix, SCOPE_UNIVERSE, UNREACHABLE);
    route.request(
        Request::new(libc::RTM_NEWROUTE, CREATE | EXCLUSIVE, &header).attribute(RTA_DST, &first.octets()),
    )
}

/// Takes that back.
pub(crate) fn remove_unreachable(
    route: &mut Socket,
    first: Ipv4Addr,
    prefix: u8,
) -> Result<(), NetlinkError> {
    let header = route_header(prefix, SCOPE_UNIVERSE, UNREACHABLE);
    let request = Request::new(libc::RTM_DELROUTE, 0, &header).attribute(RTA_DST, &first.octets());
    gone(route.request(request), libc::ESRCH)
}

/// Says which hardware address an address has.
pub(crate) fn add_neighbour(
    route: &mut Socket,
    interface: i32,
    address: Ipv4Addr,
    hardware: [u8; 6],
) -> Result<(), NetlinkError> {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWNEIGH, CREATE | REPLACE, &header)
        .attribute(NDA_DST, &address.octets())
        .attribute(NDA_LLADDR, &hardware);
    route.request(request)
}

/// An interface, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: i32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

/// All interfaces.
pub(crate) fn all(route: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let found = route.dump(&Request::new(libc::RTM_GETLINK, 0, &link(0, 0, 0)))?;
    Ok(found.iter().filter_map(|body| read_link(body)).collect())
}

fn read_link(body: &[u8]) -> Option<Link> {
    let index = i32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let rest = body.get(16..)?;
    let text = |kind| Some(String::from_utf8_lossy(find(rest, kind)?).trim_end_matches('\0').to_owned());
    let name = text(IFLA_IFNAME)?;
    let mtu = u32::from_ne_bytes(find(rest, IFLA_MTU)?.try_into().ok()?);
    Some(Link { index, name, mtu })
}

/// A route, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) first: Ipv4Addr,
    pub(crate) prefix: u8,
    /// The interface it leads to, if any.
    pub(crate) interface: Option<i32>,
}

/// All IPv4 routes of all tables, the machine's own addresses among them.
pub(crate) fn routes(route: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let found = route.dump(&Request::new(libc::RTM_GETROUTE, 0, &{
        let mut header = [0; 12];
        header[0] = AF_INET;
        header
    }))?;
    Ok(found.iter().filter_map(|body| read_route(body)).collect())
}

fn read_route(body: &[u8]) -> Option<Route> {
    let mut route = Route { first: Ipv4Addr::UNSPECIFIED, prefix: *body.get(1)?, interface: None };
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => route.first = address(value)?,
            RTA_OIF => route.interface = Some(i32::from_ne_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    Some(route)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn link(interface: i32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn route_header(prefix: u8, scope: u8, kind: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[1] = prefix;
    header[4] = TABLE_MAIN;
    header[5] = PROTOCOL;
    header[6] = scope;
    header[7] = kind;
    header
}

fn flags(value: i32) -> u32 {
    value.cast_unsigned()
}

/// Takes one refusal for success: what should be so is so.
fn gone(answer: Result<(), NetlinkError>, fine: i32) -> Result<(), NetlinkError> {
    match answer {
        Err(error) if error.errno() == Some(fine) => Ok(()),
        other => other,
    }
}

/// Switches an interface on.
pub(crate) fn up(route: &mut Socket, interface: i32) -> Result<(), NetlinkError> {
    let on = flags(libc::IFF_UP);
    route.request(Request::new(libc::RTM_NEWLINK, 0, &link(interface, on, on)))
}
