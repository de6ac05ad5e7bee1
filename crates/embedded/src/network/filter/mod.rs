//! What sandboxes may send where: one nf_tables table of ours.

mod expression;
pub(crate) mod ranges;
mod rules;
mod wire;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::addressing::{Addresses, Names, TABLE_PREFIX};
use super::netlink::{NetlinkError, Request, Socket};
use super::policy::Hole;
use rules::{EXACT, EXACT_PORTS, HOLES, RANGE_PORTS, RANGES, SANDBOXES, SETS, TCP, UDP};
use wire::Elements;

/// Someone who may send: from this interface under this address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) interface: String,
    pub(crate) address: Ipv4Addr,
    /// The sandbox it is. The filter is the only place where this is written.
    pub(crate) slot: Option<u32>,
}

impl Sender {
    fn key(&self) -> Vec<u8> {
        let mut key = vec![0; expression::IFNAME];
        for (to, from) in key.iter_mut().zip(self.interface.bytes()) {
            *to = from;
        }
        key.extend(self.address.octets());
        key
    }

    fn read(element: &wire::Element) -> Option<Self> {
        let (name, address) = element.key.split_at_checked(expression::IFNAME)?;
        let interface = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?);
        let slot = element.mark.as_deref().and_then(|mark| Some(u32::from_be_bytes(mark.try_into().ok()?)));
        Some(Self { interface, address, slot })
    }
}

/// Our table.
#[derive(Debug)]
pub(crate) struct Filter {
    socket: Socket,
    names: Names,
    /// Whether connections are counted; some kernels cannot.
    pub(crate) counts_connections: bool,
}

impl Filter {
    /// Puts the rules in place, all or none. Sandboxes that are admitted stay so.
    pub(crate) fn install(names: Names, addresses: Addresses) -> Result<Self, NetlinkError> {
        let mut socket = Socket::netfilter()?;
        let mut counts_connections = true;
        // In order: over what is there; anew, because another version left other sets; without counting.
        let mut last = None;
        for (anew, counting) in [(false, true), (true, true), (true, false)] {
            match commit(&mut socket, &installation(&names, addresses, anew, counting)) {
                Ok(()) => {
                    counts_connections = counting;
                    last = None;
                    break;
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            None => Ok(Self { socket, names, counts_connections }),
            Some(error) => Err(error),
        }
    }

    /// Lets a sandbox send, and opens its holes. Repeating it is fine.
    pub(crate) fn admit(&mut self, sender: &Sender, holes: &[Hole]) -> Result<(), NetlinkError> {
        let key = sender.key();
        let element = Elements::of(SANDBOXES.name);
        let mut requests = vec![match sender.slot {
            Some(slot) => element.marked_key(&key, &slot.to_be_bytes()),
            None => element.key(&key),
        }];
        requests.extend(hole_elements(sender.address, holes));
        let requests: Vec<_> = requests.iter().map(|elements| elements.add(&self.names.table)).collect();
        self.commit(&requests)
    }

    /// Takes back all that an address was let do. Repeating it is fine.
    pub(crate) fn expel(&mut self, sender: &Sender, holes: Option<&[Hole]>) -> Result<(), NetlinkError> {
        let address = sender.address;
        let mut gone = vec![Elements::of(SANDBOXES.name).key(&sender.key())];
        match holes {
            Some(holes) => gone.extend(hole_elements(address, holes)),
            // Nobody remembers: the kernel does.
            None => gone.extend(self.found_holes(address)?),
        }
        let gone: Vec<_> = gone.iter().map(|elements| elements.remove(&self.names.table)).collect();
        // All at once; a refused request takes the kernel ten times as long as a good one.
        let answer = self.commit(&gone);
        if !is_missing(&answer) {
            return answer;
        }
        for request in gone {
            let answer = self.commit(&[request]);
            if !is_missing(&answer) {
                answer?;
            }
        }
        Ok(())
    }

    /// Those who may send.
    pub(crate) fn admitted(&mut self) -> Result<Vec<Sender>, NetlinkError> {
        let answers = self.socket.dump(&wire::get_elements(&self.names.table, SANDBOXES.name))?;
        Ok(answers
            .iter()
            .flat_map(|body| wire::elements(body))
            .filter_map(|element| Sender::read(&element))
            .collect())
    }

    /// Notes that forwarding was off before us.
    pub(crate) fn note_forwarding(&mut self) -> Result<(), NetlinkError> {
        let table = self.names.table.clone();
        self.commit(&[wire::new_set(&table, &rules::FORWARDING_NOTE, 1)])
    }

    fn found_holes(&mut self, address: Ipv4Addr) -> Result<Vec<Elements>, NetlinkError> {
        let mut found = Vec::new();
        for set in HOLES {
            for body in self.socket.dump(&wire::get_elements(&self.names.table, set.name))? {
                let ours = wire::elements(&body)
                    .into_iter()
                    .filter(|element| element.key.starts_with(&address.octets()));
                found.extend(ours.map(|element| match element.end {
                    Some(end) => Elements::of(set.name).box_of(&element.key, &end),
                    None => Elements::of(set.name).key(&element.key),
                }));
            }
        }
        Ok(found)
    }

    fn commit(&mut self, requests: &[Request]) -> Result<(), NetlinkError> {
        commit(&mut self.socket, requests)
    }
}

/// Removes the table of a machine, if it is there.
pub(crate) fn remove(names: &Names) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    match commit(&mut socket, &[wire::delete_table(&names.table)]) {
        Err(error) if error.errno() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a table is there.
pub(crate) fn exists(table: &str) -> Result<bool, NetlinkError> {
    let answers = Socket::netfilter()?.dump(&wire::get_tables())?;
    Ok(answers.iter().any(|body| wire::table_name(body).as_deref() == Some(table)))
}

/// Whether a change is the removal of a table.
pub(crate) fn is_removal(kind: u16, body: &[u8], table: &str) -> bool {
    kind == wire::table_removed() && wire::table_name(body).as_deref() == Some(table)
}

/// Leaves the note of another machine in a table.
pub(crate) fn note_forwarding(table: &str) -> Result<(), NetlinkError> {
    commit(&mut Socket::netfilter()?, &[wire::new_set(table, &rules::FORWARDING_NOTE, 1)])
}

/// Whether a table holds the note that forwarding was off.
pub(crate) fn forwarding_noted(table: &str) -> Result<bool, NetlinkError> {
    match Socket::netfilter()?.get(&wire::get_set(table, rules::FORWARDING_NOTE.name)) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether any table has a chain of this name.
pub(crate) fn has_chain(name: &str) -> bool {
    let answers = Socket::netfilter().and_then(|mut socket| socket.dump(&wire::get_chains()));
    answers.unwrap_or_default().iter().any(|body| wire::chain_name(body).as_deref() == Some(name))
}

/// The tables of other machines of our kind that share this kernel.
pub(crate) fn other_machines(names: &Names) -> Result<BTreeSet<String>, NetlinkError> {
    let answers = Socket::netfilter()?.dump(&wire::get_tables())?;
    let tables = answers.iter().filter_map(|body| wire::table_name(body));
    Ok(tables.filter(|table| table.starts_with(TABLE_PREFIX) && *table != names.table).collect())
}

/// Whether the kernel has what the rules need: they are tried out in a table that is never committed.
pub(crate) fn supported() -> Result<(), NetlinkError> {
    let names = Names::new("probe");
    let mut socket = Socket::netfilter()?;
    // 192.0.2.0/24 is for documentation: no route is made, and nothing is sent.
    let subnet = crate::settings::Subnet::new(Ipv4Addr::new(192, 0, 2, 0), 24);
    let Some(subnet) = subnet else { return Ok(()) };
    let mut requests = installation(&names, Addresses(subnet), false, false);
    requests.push(wire::delete_table(&names.table));
    commit(&mut socket, &requests)
}

/// Chains of others that end the way of packets by default: `input` or `forward` as the kernel numbers hooks.
pub(crate) fn foreign_drops(names: &Names, hook: u32) -> Vec<String> {
    let answers = Socket::netfilter().and_then(|mut socket| socket.dump(&wire::get_chains()));
    let chains = answers.unwrap_or_default().into_iter().filter_map(|body| wire::base_chain(&body));
    let drops = chains.filter(|chain| chain.hook == hook && chain.drops && chain.table != names.table);
    drops
        .map(|chain| {
            let family = if chain.family == 1 { "inet" } else { "ip" };
            format!("chain {} of table {family} {}", chain.name, chain.table)
        })
        .collect()
}

/// The number of the hook for what is for this machine.
pub(crate) const INPUT: u32 = 1;
/// The number of the hook for what passes through.
pub(crate) const FORWARD: u32 = 2;

/// Whether something was refused because what it names is not there.
fn is_missing(answer: &Result<(), NetlinkError>) -> bool {
    matches!(answer, Err(error) if error.errno() == Some(libc::ENOENT))
}

/// What `nft flush ruleset` does.
#[cfg(test)]
pub(crate) fn flush_ruleset() -> Result<(), NetlinkError> {
    commit(&mut Socket::netfilter()?, &[wire::delete_everything()])
}

/// A table of somebody else's that drops by default what passes through.
#[cfg(test)]
pub(crate) fn drop_forwarded(table: &str) -> Result<(), NetlinkError> {
    use super::netlink::WithAttributes as _;
    let hook = wire::Hook { kind: "filter", number: FORWARD, priority: 0 };
    let chain = wire::new_chain(table, "FORWARD", Some(hook)).number_be(5, 0);
    commit(&mut Socket::netfilter()?, &[wire::new_table(table), chain])
}

fn commit(socket: &mut Socket, requests: &[Request]) -> Result<(), NetlinkError> {
    let [begin, end] = wire::batch();
    socket.batch(&begin, requests, &end)
}

/// Table, sets, chains and rules, in the order the kernel needs.
fn installation(names: &Names, addresses: Addresses, anew: bool, counting: bool) -> Vec<Request> {
    let table = names.table.as_str();
    let mut requests = vec![wire::new_table(table)];
    if anew {
        requests.extend([wire::delete_table(table), wire::new_table(table)]);
    }
    let sets = SETS.iter().filter(|set| counting || !set.dynamic);
    requests.extend(sets.zip(1..).map(|(set, id)| wire::new_set(table, set, id)));
    for (set, content) in [(rules::NEVER, ranges::NEVER.as_slice()), (rules::PRIVATE, &ranges::PRIVATE)] {
        let elements = content
            .iter()
            .fold(Elements::of(set.name), |elements, (first, last)| elements.range(*first, *last));
        requests.extend([wire::flush_set(table, set.name), elements.add(table)]);
    }
    let chains = rules::chains(&names.prefix(), addresses, counting);
    // What a rule goes to has to be there before the rule.
    requests.extend(chains.iter().map(|chain| wire::new_chain(table, chain.name, chain.hook)));
    requests.extend(chains.iter().map(|chain| wire::flush_chain(table, chain.name)));
    for chain in &chains {
        requests.extend(chain.rules.iter().map(|rule| wire::new_rule(table, chain.name, rule)));
    }
    requests
}

/// The elements that open the holes of one sandbox. Ranges inside of others are left out: they open nothing
/// more, and the kernel takes no elements that overlap.
fn hole_elements(source: Ipv4Addr, holes: &[Hole]) -> Vec<Elements> {
    let wider = |hole: &Hole, other: &Hole| {
        (other.port.is_none() || other.port == hole.port)
            && other.prefix < hole.prefix
            && (other.first..=other.last()).contains(&hole.first)
    };
    let distinct: BTreeSet<_> = holes.iter().map(|hole| (hole.first, hole.prefix, hole.port)).collect();
    let distinct = distinct.into_iter().map(|(first, prefix, port)| Hole { first, prefix, port });
    let mut elements = Vec::new();
    for hole in distinct {
        // One address named exactly opens more than a range around it does, so it always counts.
        if hole.prefix < 32 && holes.iter().any(|other| wider(&hole, other)) {
            continue;
        }
        let key = |to: Ipv4Addr, port: Option<(u8, u16)>| {
            let mut key = [source.octets(), to.octets()].concat();
            if let Some((protocol, port)) = port {
                key.extend([protocol, 0, 0, 0]);
                key.extend(port.to_be_bytes());
                key.extend([0, 0]);
            }
            key
        };
        let protocols = match hole.port {
            None => vec![None],
            Some(port) => vec![Some((TCP, port)), Some((UDP, port))],
        };
        for port in protocols {
            let (first, last) = (key(hole.first, port), key(hole.last(), port));
            elements.push(match (hole.prefix == 32, port.is_some()) {
                (true, false) => Elements::of(EXACT.name).key(&first),
                (true, true) => Elements::of(EXACT_PORTS.name).key(&first),
                (false, false) => Elements::of(RANGES.name).box_of(&first, &last),
                (false, true) => Elements::of(RANGE_PORTS.name).box_of(&first, &last),
            });
        }
    }
    elements
}
