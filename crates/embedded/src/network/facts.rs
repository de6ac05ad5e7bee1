//! What this machine can do for the networks of sandboxes, found out without changing it.

use std::thread;

use super::NetworkError;
use super::addressing::hardware;
use super::error::with_sources;
use super::filter;
use super::links::{self, Veth};
use super::namespace::{Maker, enter};
use super::netlink::{NetlinkError, Socket};

/// What this machine can do for the networks of sandboxes. What it cannot comes with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetFacts {
    /// Network namespaces: without them there are no sandboxes.
    pub namespaces: Result<(), String>,
    /// Whether we may change the machine's own network: open networks need it.
    pub rights: Result<(), String>,
    /// Pairs of interfaces (veth): open networks need them.
    pub pairs: Result<(), String>,
    /// All that the rules for open networks are made of (nf_tables).
    pub filter: Result<(), String>,
}

impl NetFacts {
    /// Whether sandboxes can have open networks, as far as this can be told without making one.
    #[must_use]
    pub fn open(&self) -> bool {
        self.lacking().is_empty()
    }

    /// What is missing for open networks, and how to get it: one sentence each.
    #[must_use]
    pub fn lacking(&self) -> Vec<String> {
        let remedies = [
            (
                &self.namespaces,
                "no network namespaces, so no sandboxes",
                "needs CONFIG_NET_NS, and user.max_net_namespaces above 0",
            ),
            (
                &self.rights,
                "sandboxes are isolated from the network",
                "open networks need CAP_NET_ADMIN on this machine: run as root",
            ),
            (
                &self.pairs,
                "sandboxes are isolated from the network",
                "open networks need veth interfaces: `modprobe veth`",
            ),
            (
                &self.filter,
                "sandboxes are isolated from the network",
                "open networks need nf_tables with NAT, fib, reject and sets: `modprobe nf_tables`",
            ),
        ];
        let lacking = remedies.into_iter().filter_map(|(fact, effect, remedy)| {
            fact.as_ref().err().map(|why| format!("{effect}: {remedy} ({why})"))
        });
        lacking.collect()
    }
}

/// Finds out what this machine can do, in namespaces that are gone afterwards.
#[must_use]
pub fn probe() -> NetFacts {
    let lost = || NetFacts {
        namespaces: Err("the thread that tries it ended".to_owned()),
        rights: Ok(()),
        pairs: Ok(()),
        filter: Ok(()),
    };
    thread::spawn(find).join().unwrap_or_else(|_| lost())
}

fn find() -> NetFacts {
    let rights = say(rights());
    // The thread ends in the namespace, and the namespace with it.
    let made = Maker::for_this_thread().and_then(|maker| maker.make());
    let made = made.and_then(|made| enter(&made.namespace).map_err(NetworkError::Home).map(|()| made));
    match made {
        Ok(mut made) => NetFacts {
            namespaces: Ok(()),
            rights,
            pairs: say(pair(&mut made.route)),
            filter: say(filter::supported()),
        },
        Err(error) => {
            let untried = Err("not tried without a network namespace".to_owned());
            NetFacts {
                namespaces: Err(with_sources(&error)),
                rights,
                pairs: untried.clone(),
                filter: untried,
            }
        }
    }
}

/// Asks for the removal of an interface whose name nothing has: those without the right are told so first.
pub(super) fn rights() -> Result<(), NetlinkError> {
    links::remove(&mut Socket::route()?, "stockade-none")
}

fn pair(route: &mut Socket) -> Result<(), NetlinkError> {
    let ends = hardware(std::net::Ipv4Addr::LOCALHOST);
    links::add_veth(route, &Veth { name: "one", peer: "other", namespace: None, ends, mtu: 1500 })
}

fn say(found: Result<(), NetlinkError>) -> Result<(), String> {
    found.map_err(|error| with_sources(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let facts = NetFacts {
            namespaces: Ok(()),
            rights: Err("Operation not permitted".to_owned()),
            pairs: Ok(()),
            filter: Ok(()),
        };
        assert!(!facts.open());
        let [said] = &facts.lacking()[..] else { panic!("{:?}", facts.lacking()) };
        assert!(said.contains("run as root") && said.contains("not permitted"), "{said}");
    }

    #[test]
    fn trying_it_out_leaves_nothing() {
        let interfaces = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count();
        let before = interfaces();
        let facts = probe();
        assert_eq!(facts.namespaces, Ok(()));
        assert_eq!(interfaces(), before);
    }
}
