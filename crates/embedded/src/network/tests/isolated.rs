//! A namespace with nothing but its own loopback.

use std::net::{TcpListener, TcpStream};

use super::super::namespace::inside;
use super::world::{PUBLIC, on_a_machine};
use super::*;

fn read(namespace: &OwnedFd, path: &str) -> String {
    inside(namespace, || std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn an_isolated_sandbox_has_its_own_loopback_and_nothing_else() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let one = network.prepare(0, &ResolvedPolicy::Isolated).await.unwrap().netns;
        let other = network.prepare(1, &ResolvedPolicy::Isolated).await.unwrap().netns;
        let listener = inside(&one, || TcpListener::bind("127.0.0.1:80").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        inside(&one, || TcpStream::connect(address).unwrap()).unwrap();
        let refused = inside(&other, || TcpStream::connect(address).unwrap_err()).unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let nowhere = inside(&one, || TcpStream::connect((PUBLIC[0], 80)).unwrap_err()).unwrap();
        assert_eq!(nowhere.raw_os_error(), Some(libc::ENETUNREACH));
        assert!(!read(&one, "/proc/thread-self/net/dev").contains("eth0"));
    });
}

#[test]
fn programs_inside_may_listen_on_every_port_and_ping_themselves() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = network.prepare(0, &ResolvedPolicy::Isolated).await.unwrap().netns;
        assert_eq!(read(&sandbox, "/proc/sys/net/ipv4/ip_unprivileged_port_start").trim(), "0");
        assert_eq!(read(&sandbox, "/proc/sys/net/ipv4/ping_group_range").trim(), "0\t2147483647");
    });
}

#[test]
fn a_machine_that_wants_no_open_networks_is_not_made_a_router() {
    on_a_machine(async |_world| {
        let options = NetworkOptions { default_mode: Some(NetworkMode::Isolated), ..mk_options("test") };
        let network = Network::start(options).await.unwrap();
        network.prepare(0, &ResolvedPolicy::Isolated).await.unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "0");
        assert!(!super::super::open::left_behind("test").unwrap());
    });
}
