//! What an open network reaches, and what it does not.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, sendto, socket_with,
    sockopt,
};

use super::super::addressing::hardware;
use super::super::namespace::{inside, of_this_thread};
use super::world::{
    CLOSED, MACHINE, OTHER_PORT, PATIENCE, PORT, PUBLIC, SERVICE, listen, on_a_machine, tcp, udp,
};
use super::*;

async fn mk_open(network: &Network, slot: u32, holes: Vec<Hole>) -> OwnedFd {
    let prepared = network.prepare(slot, &ResolvedPolicy::Open(holes)).await.unwrap();
    assert_eq!(prepared.messages, Vec::<String>::new());
    assert_eq!(prepared.name_server, network.name_server());
    prepared.netns
}

#[test]
fn an_open_sandbox_reaches_the_internet_under_the_machines_address() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        assert_eq!(network.closed(), None);
        let sandbox = mk_open(&network, 0, vec![]).await;
        for public in PUBLIC {
            assert_eq!(tcp(&sandbox, public, PORT).unwrap(), MACHINE.to_string());
            assert_eq!(udp(&sandbox, public, PORT).unwrap(), MACHINE.to_string());
        }
    });
}

#[test]
fn what_is_not_the_internet_is_refused_at_once() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![]).await;
        for closed in CLOSED {
            assert!(tcp(&sandbox, closed, PORT).is_err_and(is_refused), "{closed}");
            assert!(udp(&sandbox, closed, PORT).is_err(), "{closed}");
        }
    });
}

fn is_refused(error: std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

#[test]
fn the_machines_own_services_are_out_of_reach_unless_named_exactly() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let gateway = gateway_of(&network);
        listen(&of_this_thread().unwrap(), gateway, SERVICE);
        let closed = mk_open(&network, 0, vec![mk_hole("0.0.0.0/0", None)]).await;
        for own in [MACHINE, gateway] {
            assert!(tcp(&closed, own, SERVICE).is_err_and(is_refused), "{own}");
            assert!(udp(&closed, own, SERVICE).is_err(), "{own}");
        }
        let allowed = mk_open(&network, 1, vec![mk_hole("192.0.2.2/32", Some(SERVICE))]).await;
        let own = address_of(&allowed);
        assert_eq!(tcp(&allowed, MACHINE, SERVICE).unwrap(), own);
        assert_eq!(udp(&allowed, MACHINE, SERVICE).unwrap(), own);
        assert!(tcp(&allowed, gateway, SERVICE).is_err_and(is_refused));
    });
}

fn gateway_of(network: &Network) -> Ipv4Addr {
    match network.name_server() {
        Some(IpAddr::V4(gateway)) => gateway,
        other => panic!("no gateway: {other:?}"),
    }
}

/// The address a sandbox's packets come from.
fn address_of(namespace: &OwnedFd) -> String {
    let local = || {
        UdpSocket::bind("0.0.0.0:0")
            .and_then(|socket| socket.connect((PUBLIC[0], 1)).and(socket.local_addr()))
    };
    inside(namespace, local).unwrap().unwrap().ip().to_string()
}

#[test]
fn a_hole_opens_its_range_and_port_to_its_sandbox_alone() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let holes = vec![
            mk_hole("10.0.0.0/8", Some(PORT)),
            mk_hole("192.168.0.0/16", None),
            // Inside of the last one: it opens nothing more, and must not be in the way.
            mk_hole("192.168.77.0/24", None),
            mk_hole("192.168.77.0/24", Some(PORT)),
            mk_hole("169.254.169.254/32", Some(PORT)),
        ];
        let allowed = mk_open(&network, 0, holes).await;
        let other = mk_open(&network, 1, vec![mk_hole("0.0.0.0/0", None)]).await;
        let [ten, _, home, _, _, metadata, ..] = CLOSED;
        for (to, port, expect) in [
            (ten, PORT, true),
            (ten, OTHER_PORT, false),
            (home, PORT, true),
            (home, OTHER_PORT, true),
            (metadata, PORT, true),
            (metadata, OTHER_PORT, false),
            (CLOSED[1], PORT, false),
        ] {
            assert_eq!(tcp(&allowed, to, port).is_ok(), expect, "{to}:{port} by TCP");
            assert_eq!(udp(&allowed, to, port).is_ok(), expect, "{to}:{port} by UDP");
        }
        // The widest range there is does not lead to what speaks for the machine.
        assert_eq!(tcp(&other, ten, OTHER_PORT).unwrap(), MACHINE.to_string());
        assert!(tcp(&other, metadata, PORT).is_err_and(is_refused));
    });
}

#[test]
fn sandboxes_do_not_reach_each_other() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let one = mk_open(&network, 0, vec![]).await;
        let address: Ipv4Addr = address_of(&one).parse().unwrap();
        listen(&one, address, PORT);
        assert_eq!(tcp(&one, address, PORT).unwrap(), address.to_string());
        let exactly = vec![mk_hole(&format!("{address}/32"), None), mk_hole("0.0.0.0/0", None)];
        let other = mk_open(&network, 1, exactly).await;
        assert!(tcp(&other, address, PORT).is_err_and(is_refused));
        assert!(udp(&other, address, PORT).is_err());
    });
}

#[test]
fn nobody_outside_reaches_a_sandbox() {
    on_a_machine(async |world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![]).await;
        let address: Ipv4Addr = address_of(&sandbox).parse().unwrap();
        listen(&sandbox, address, PORT);
        let mut inside_world = Made::from_existing(world.namespace.try_clone().unwrap()).unwrap();
        let eth0 = links::index(&mut inside_world.route, "eth0").unwrap().unwrap();
        links::add_host_route(&mut inside_world.route, eth0, address, None).unwrap();
        links::add_neighbour(&mut inside_world.route, eth0, address, hardware(MACHINE).machine).unwrap();
        assert!(tcp(&world.namespace, address, PORT).is_err());
        assert!(udp(&world.namespace, address, PORT).is_err());
    });
}

/// An IPv4 packet with a datagram for the world in it, from any address, with any options.
fn mk_packet(source: Ipv4Addr, to: Ipv4Addr, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = u8::try_from(5 + options.len() / 4).unwrap();
    let mut packet = vec![0x40 | header, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(options);
    // No checksum: IPv4 lets a datagram go without.
    packet.extend(7777_u16.to_be_bytes());
    packet.extend(RAW_PORT.to_be_bytes());
    packet.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

const RAW_PORT: u16 = 9999;

fn send_raw(namespace: &OwnedFd, packets: &[Vec<u8>]) {
    let socket = inside(namespace, || {
        socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::ipproto::RAW),
        )
    });
    let socket = socket.unwrap().unwrap();
    for packet in packets {
        let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        // What the sandbox's own kernel refuses does not leave it either.
        let _ = sendto(&socket, packet, SendFlags::empty(), &SocketAddrV4::new(to, 0));
    }
}

#[test]
fn forged_packets_do_not_leave() {
    on_a_machine(async |world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![]).await;
        let neighbour = mk_open(&network, 1, vec![]).await;
        let own: Ipv4Addr = address_of(&sandbox).parse().unwrap();
        let other: Ipv4Addr = address_of(&neighbour).parse().unwrap();
        let listener =
            inside(&world.namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, RAW_PORT)).unwrap()).unwrap();
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        // Loose source route, by way of a private address to the internet.
        let detour = [131, 7, 4, 10, 9, 9, 9, 0];
        let mut packets = Vec::new();
        for source in [other, MACHINE, PUBLIC[1], gateway_of(&network), Ipv4Addr::LOCALHOST] {
            packets.push(mk_packet(source, PUBLIC[0], &[], b"forged"));
        }
        packets.push(mk_packet(own, PUBLIC[0], &detour, b"detour"));
        packets.extend(CLOSED.map(|closed| mk_packet(own, closed, &[], b"closed")));
        // An honest one behind them: what came before it has been judged when it arrives.
        packets.push(mk_packet(own, PUBLIC[0], &[], b"honest"));
        send_raw(&sandbox, &packets);
        let mut buffer = [0; 16];
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
    });
}

#[test]
fn there_is_no_way_out_by_ipv6_or_other_protocols() {
    on_a_machine(async |world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![]).await;
        let addresses =
            inside(&sandbox, || std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()).unwrap();
        assert!(!addresses.contains("eth0"), "{addresses}");
        for to in ["[fd00:ec2::254]:80", "[2001:db8::1]:80", "[::ffff:169.254.169.254]:80"] {
            let to: std::net::SocketAddr = to.parse().unwrap();
            inside(&sandbox, || TcpStream::connect_timeout(&to, PATIENCE).unwrap_err()).unwrap();
        }
        assert!(ping(&sandbox, PUBLIC[0]), "the world answers pings");
        for closed in CLOSED.into_iter().chain([MACHINE, gateway_of(&network)]) {
            assert!(!ping(&sandbox, closed), "{closed}");
        }
        drop(world);
    });
}

/// Whether an address answers a ping from inside a namespace.
fn ping(namespace: &OwnedFd, to: Ipv4Addr) -> bool {
    let socket = inside(namespace, || {
        socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(rustix::net::ipproto::ICMP),
        )
    });
    let socket = socket.unwrap().unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(std::time::Duration::from_millis(300)))
        .unwrap();
    connect(&socket, &SocketAddrV4::new(to, 0)).unwrap();
    let _ = send(&socket, &[8, 0, 0, 0, 0, 0, 0, 1], SendFlags::empty());
    let mut answer = [0; 64];
    recv(&socket, &mut answer[..], RecvFlags::empty()).is_ok()
}
