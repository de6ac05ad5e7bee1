//! A machine with one way out, and a world behind it in which every address answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::network::addressing::hardware;
use crate::network::links::{self, Veth};
use crate::network::namespace::{self, Made, Maker};

/// How long an answer within this machine may take: what is lost is sent again after one and after three seconds.
pub(in crate::network) const PATIENCE: Duration = Duration::from_secs(5);
/// The machine's own address towards the world.
pub(in crate::network) const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the world listens, with TCP and UDP.
pub(in crate::network) const PORT: u16 = 80;
/// Where it listens too.
pub(in crate::network) const OTHER_PORT: u16 = 443;
/// Where the machine itself listens.
pub(in crate::network) const SERVICE: u16 = 8080;

/// Addresses of the world that are the internet.
pub(in crate::network) const PUBLIC: [Ipv4Addr; 2] =
    [Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(198, 51, 100, 7)];
/// Addresses of the world that are not, and answer all the same.
pub(in crate::network) const CLOSED: [Ipv4Addr; 9] = [
    Ipv4Addr::new(10, 9, 9, 9),
    Ipv4Addr::new(172, 16, 5, 5),
    Ipv4Addr::new(192, 168, 77, 7),
    Ipv4Addr::new(100, 64, 3, 3),
    Ipv4Addr::new(198, 18, 0, 9),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Everything outside the machine.
pub(in crate::network) struct World {
    pub(in crate::network) namespace: OwnedFd,
}

/// Runs a test on a machine of its own: a thread in a new namespace whose only way out leads to a world.
/// Threads that it starts are on that machine too.
pub(in crate::network) fn on_a_machine<F: Future<Output = ()>>(
    test: impl FnOnce(World) -> F + Send + 'static,
) {
    // The usual 1,024 are not enough for hundreds of networks.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let machine = thread::spawn(move || {
        let machine = Maker::for_this_thread().unwrap().make().unwrap();
        let world = mk_world(machine);
        // New namespaces begin with what the first one has.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(world));
    });
    if let Err(panic) = machine.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mk_world(mut machine: Made) -> World {
    let mut world = Maker::for_this_thread().unwrap().make().unwrap();
    namespace::enter(&machine.namespace).unwrap();
    let ends = hardware(MACHINE);
    let veth =
        Veth { name: "uplink", peer: "eth0", namespace: Some(world.namespace.as_fd()), ends, mtu: 1400 };
    links::add_veth(&mut machine.route, &veth).unwrap();
    let uplink = links::index(&mut machine.route, "uplink").unwrap().unwrap();
    let eth0 = links::index(&mut world.route, "eth0").unwrap().unwrap();
    for (route, index, own, other, mac) in [
        (&mut machine.route, uplink, MACHINE, ROUTER, ends.sandbox),
        (&mut world.route, eth0, ROUTER, MACHINE, ends.machine),
    ] {
        links::add_address(route, index, own, 32).unwrap();
        links::up_quiet(route, index).unwrap();
        links::add_host_route(route, index, other, None).unwrap();
        links::add_neighbour(route, index, other, mac).unwrap();
    }
    links::add_default_route(&mut machine.route, uplink, ROUTER).unwrap();
    for address in PUBLIC.iter().chain(&CLOSED) {
        links::add_address(&mut world.route, 1, *address, 32).unwrap();
    }
    for address in PUBLIC.into_iter().chain(CLOSED) {
        for port in [PORT, OTHER_PORT] {
            listen(&world.namespace, address, port);
        }
    }
    listen(&machine.namespace, MACHINE, SERVICE);
    World { namespace: world.namespace }
}

/// Answers every connection and every datagram at an address with where it came from.
pub(in crate::network) fn listen(namespace: &OwnedFd, address: Ipv4Addr, port: u16) {
    let bind = || (TcpListener::bind((address, port)).unwrap(), UdpSocket::bind((address, port)).unwrap());
    let (tcp, udp) = namespace::inside(namespace, bind).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let _ =
                io::Write::write_all(&mut &stream, stream.peer_addr().unwrap().ip().to_string().as_bytes());
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// Connects from inside a namespace; what the other side says of where the connection came from.
pub(in crate::network) fn tcp(namespace: &OwnedFd, to: Ipv4Addr, port: u16) -> io::Result<String> {
    namespace::inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut said = String::new();
        io::Read::read_to_string(&mut stream, &mut said)?;
        Ok(said)
    })
    .unwrap()
}

/// Sends a datagram from inside a namespace; what is answered, or how it was refused.
pub(in crate::network) fn udp(namespace: &OwnedFd, to: Ipv4Addr, port: u16) -> io::Result<String> {
    namespace::inside(namespace, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((to, port))?;
        socket.send(b"who")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
    .unwrap()
}
