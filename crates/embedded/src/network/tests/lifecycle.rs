//! What is left, adopted and taken down when servers and machines come and go.

use std::time::{Duration, Instant};

use super::super::netlink::Socket;
use super::super::{filter, links, open};
use super::world::{CLOSED, MACHINE, PORT, PUBLIC, SERVICE, on_a_machine, tcp};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

/// The interfaces of the machine but its own two.
fn interfaces() -> Vec<String> {
    let links = links::all(&mut Socket::route().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).filter(|name| name != "lo" && name != "uplink").collect()
}

/// The kernel ends namespaces in its own time; nothing tells when it is done.
async fn nothing_is_left() {
    let since = Instant::now();
    while !interfaces().is_empty() {
        assert!(since.elapsed() < DEADLINE, "{:?} are left", interfaces());
        tokio::task::yield_now().await;
    }
}

async fn mk_open(network: &Network, slot: u32, holes: Vec<Hole>) -> OwnedFd {
    network.prepare(slot, &ResolvedPolicy::Open(holes)).await.unwrap().netns
}

#[test]
fn a_restarted_server_takes_over_what_lives_and_removes_the_rest() {
    on_a_machine(async |_world| {
        let policy = ResolvedPolicy::Open(vec![mk_hole("10.0.0.0/8", None)]);
        let first = Network::start(mk_options("test")).await.unwrap();
        let living = first.prepare(1, &policy).await.unwrap().netns;
        let dead = first.prepare(2, &policy).await.unwrap().netns;
        drop(first);
        assert!(tcp(&living, PUBLIC[0], PORT).is_ok(), "while there is no server");
        let second = Network::start(mk_options("test")).await.unwrap();
        second.adopt(1, &policy, living.try_clone().unwrap()).await.unwrap();
        assert_eq!(second.sweep(BTreeSet::from([1])).await.unwrap(), 1);
        for to in [PUBLIC[0], CLOSED[0]] {
            assert!(tcp(&living, to, PORT).is_ok(), "{to}");
            assert!(tcp(&dead, to, PORT).is_err(), "{to}");
        }
        second.release(1).await.unwrap();
        assert!(tcp(&living, PUBLIC[0], PORT).is_err());
    });
}

#[test]
fn what_is_missing_of_an_adopted_network_is_made_again() {
    on_a_machine(async |_world| {
        let policy = ResolvedPolicy::Open(vec![]);
        for lose in [|| open::down("test").unwrap(), || filter::flush_ruleset().unwrap()] {
            let first = Network::start(mk_options("test")).await.unwrap();
            let sandbox = first.prepare(1, &policy).await.unwrap().netns;
            drop(first);
            lose();
            assert!(tcp(&sandbox, PUBLIC[0], PORT).is_err());
            let second = Network::start(mk_options("test")).await.unwrap();
            second.adopt(1, &policy, sandbox.try_clone().unwrap()).await.unwrap();
            assert!(tcp(&sandbox, PUBLIC[0], PORT).is_ok());
        }
    });
}

#[test]
fn an_address_passes_on_without_the_rights_of_whoever_had_it() {
    on_a_machine(async |_world| {
        // Room for three, so that addresses come round at once.
        let options = NetworkOptions { subnet: "10.77.0.0/29".parse().ok(), ready: 1, ..mk_options("test") };
        let network = Network::start(options.clone()).await.unwrap();
        for slot in 0..2 {
            drop(mk_open(&network, slot, vec![mk_hole("10.0.0.0/8", None)]).await);
        }
        // Killed before it could release them.
        drop(network);
        let network = Network::start(options).await.unwrap();
        let mut all = Vec::new();
        for slot in 10..13 {
            let since = Instant::now();
            let sandbox = loop {
                // Addresses are free again when the kernel has ended the namespaces.
                match network.prepare(slot, &ResolvedPolicy::Open(vec![])).await {
                    Ok(prepared) => break prepared.netns,
                    Err(error) => assert!(since.elapsed() < DEADLINE, "{error}"),
                }
            };
            tcp(&sandbox, PUBLIC[0], PORT).unwrap_or_else(|error| panic!("slot {slot}: {error}"));
            assert!(tcp(&sandbox, CLOSED[0], PORT).is_err());
            all.push(sandbox);
        }
        let full = network.prepare(13, &ResolvedPolicy::Open(vec![])).await.unwrap_err();
        assert!(
            full.to_string().contains("room for 3") || full.to_string().contains("for 3 sandboxes"),
            "{full}"
        );
    });
}

#[test]
fn machines_that_share_a_kernel_do_not_disturb_each_other() {
    on_a_machine(async |_world| {
        assert_eq!(forwarding(), "0");
        let one = Network::start(mk_options("one")).await.unwrap();
        let two = Network::start(mk_options("two")).await.unwrap();
        assert_ne!(one.subnet().unwrap().0, two.subnet().unwrap().0);
        let [in_one, in_two] = [mk_open(&one, 0, vec![]).await, mk_open(&two, 0, vec![]).await];
        assert!(tcp(&in_one, PUBLIC[0], PORT).is_ok());
        assert!(tcp(&in_two, PUBLIC[0], PORT).is_ok());
        assert_eq!(one.sweep(BTreeSet::new()).await.unwrap(), 1);
        assert!(tcp(&in_one, PUBLIC[0], PORT).is_err());
        assert!(tcp(&in_two, PUBLIC[0], PORT).is_ok());
        drop(one);
        down("one").unwrap();
        assert_eq!(forwarding(), "1", "the other one needs it");
        assert!(tcp(&in_two, PUBLIC[0], PORT).is_ok());
        drop(two);
        down("two").unwrap();
        assert_eq!(forwarding(), "0", "as it was found");
        nothing_is_left().await;
        assert!(!filter::has_chain("guard"));
    });
}

#[test]
fn forwarding_that_was_on_stays_on() {
    on_a_machine(async |_world| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let network = Network::start(mk_options("test")).await.unwrap();
        assert_eq!(network.closed(), None);
        drop(network);
        down("test").unwrap();
        assert_eq!(forwarding(), "1");
    });
}

#[test]
fn a_machine_that_drops_what_passes_through_is_found_out() {
    on_a_machine(async |_world| {
        filter::drop_forwarded("foreign").unwrap();
        let network = Network::start(mk_options("test")).await.unwrap();
        let why = network.closed().unwrap().to_owned();
        assert!(
            why.contains("chain FORWARD of table inet foreign") && why.contains("iptables -I FORWARD"),
            "{why}"
        );
        let policy = network.resolve(&EgressPolicy::default()).unwrap();
        assert_eq!(policy, ResolvedPolicy::Isolated);
        let prepared = network.prepare(0, &ResolvedPolicy::Open(vec![])).await.unwrap();
        assert!(prepared.messages[0].contains("isolated"), "{:?}", prepared.messages);
        assert_eq!(prepared.name_server, None);
        assert!(tcp(&prepared.netns, PUBLIC[0], PORT).is_err());
        assert_eq!(forwarding(), "0", "it is no router for nothing");
        assert!(!filter::has_chain("guard"));
        nothing_is_left().await;
    });
}

#[test]
fn a_filter_that_somebody_removes_comes_back() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![mk_hole("10.0.0.0/8", None)]).await;
        filter::flush_ruleset().unwrap();
        let since = Instant::now();
        while !filter::has_chain("masquerade") {
            assert!(since.elapsed() < DEADLINE);
            tokio::task::yield_now().await;
        }
        // Whoever is let through comes after the rules.
        while tcp(&sandbox, PUBLIC[0], PORT).is_err() {
            assert!(since.elapsed() < DEADLINE);
        }
        assert!(tcp(&sandbox, CLOSED[0], PORT).is_ok(), "its hole");
        assert!(tcp(&sandbox, CLOSED[1], PORT).is_err());
        assert!(tcp(&sandbox, MACHINE, SERVICE).is_err());
        drop(network);
        down("test").unwrap();
        assert_eq!(forwarding(), "0");
    });
}

#[test]
fn a_range_that_is_in_use_is_refused_by_name() {
    on_a_machine(async |_world| {
        let with = |subnet: &str| NetworkOptions { subnet: subnet.parse().ok(), ..mk_options("test") };
        let error = Network::start(with("192.0.2.0/24")).await.unwrap_err().to_string();
        assert!(error.contains("192.0.2.0/24") && error.contains("uplink"), "{error}");
        let network = Network::start(with("10.77.0.0/24")).await.unwrap();
        let sandbox = mk_open(&network, 0, vec![]).await;
        drop(network);
        let error = Network::start(with("10.78.0.0/24")).await.unwrap_err().to_string();
        assert!(error.contains("10.77.0.0/24") && error.contains("still run"), "{error}");
        drop(sandbox);
        down("test").unwrap();
        let network = Network::start(with("10.78.0.0/24")).await.unwrap();
        assert_eq!(network.subnet().unwrap().0.to_string(), "10.78.0.0/24");
    });
}

#[test]
fn five_hundred_open_networks_come_and_go_and_leave_nothing() {
    on_a_machine(async |_world| {
        let network = Network::start(mk_options("test")).await.unwrap();
        let mut all = Vec::new();
        for slot in 0..500 {
            all.push(mk_open(&network, slot, vec![]).await);
        }
        for sandbox in [&all[0], &all[250], &all[499]] {
            assert_eq!(tcp(sandbox, PUBLIC[0], PORT).unwrap(), MACHINE.to_string());
            assert!(tcp(sandbox, MACHINE, SERVICE).is_err());
        }
        for slot in 0..500 {
            network.release(slot).await.unwrap();
        }
        assert_eq!(network.sweep(BTreeSet::new()).await.unwrap(), 0, "release left something");
        drop((all, network));
        down("test").unwrap();
        nothing_is_left().await;
    });
}

#[test]
fn servers_that_start_at_one_instant_take_ranges_of_their_own() {
    on_a_machine(async |_world| {
        let start = std::sync::Arc::new(std::sync::Barrier::new(12));
        let starts: Vec<_> = (0..12)
            .map(|number| {
                let start = std::sync::Arc::clone(&start);
                std::thread::spawn(move || {
                    start.wait();
                    // One of them was told which, and has it or hears that it is taken.
                    let wanted = (number == 11).then(|| "10.213.128.0/24".parse().unwrap());
                    Open::start(&format!("machine-{number}"), wanted)
                })
            })
            .collect();
        let mut ranges = Vec::new();
        for (number, started) in starts.into_iter().enumerate() {
            match started.join().unwrap() {
                Ok(open) => ranges.push(open.subnet()),
                Err(NetworkError::Clash { .. }) if number == 11 => {}
                Err(error) => panic!("{number}: {error}"),
            }
        }
        assert!(ranges.len() >= 11, "{ranges:?}");
        for (at, one) in ranges.iter().enumerate() {
            for other in &ranges[at + 1..] {
                let prefix = one.prefix().min(other.prefix());
                let apart = (one.address().to_bits() ^ other.address().to_bits()) >> (32 - prefix) != 0;
                assert!(apart, "{one} and {other} have addresses in common");
            }
        }
        for number in 0..12 {
            down(&format!("machine-{number}")).unwrap();
        }
    });
}
