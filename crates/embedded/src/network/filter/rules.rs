//! The rules, as data. `nft list ruleset` shows them; this is why they are as they are.
//!
//! Everything that comes from a sandbox is judged by its destination before connection tracking sees it: what
//! is refused costs no entry there, and no other table has translated the destination yet. The rules are the
//! same for all; what differs between sandboxes are elements of sets, by their address.

use super::expression::{Field, Rule};
use super::wire::{Hook, Set};
use crate::network::addressing::{Addresses, Seat};

/// Which address each sandbox has: interface and source together.
pub(super) const SANDBOXES: Set = Set { name: "sandboxes", fields: &[16, 4], ranges: false, dynamic: false };
/// Destinations named exactly: everything there.
pub(super) const EXACT: Set = Set { name: "exact", fields: &[4, 4], ranges: false, dynamic: false };
/// Destinations named exactly: one port of one protocol.
pub(super) const EXACT_PORTS: Set =
    Set { name: "exact-ports", fields: &[4, 4, 1, 2], ranges: false, dynamic: false };
/// Allowed ranges: everything there.
pub(super) const RANGES: Set = Set { name: "ranges", fields: &[4, 4], ranges: true, dynamic: false };
/// Allowed ranges: one port of one protocol.
pub(super) const RANGE_PORTS: Set =
    Set { name: "range-ports", fields: &[4, 4, 1, 2], ranges: true, dynamic: false };
/// What is closed to all who were not allowed exactly it.
pub(super) const NEVER: Set = Set { name: "never", fields: &[4], ranges: true, dynamic: false };
/// What is closed to all who were not allowed it.
pub(super) const PRIVATE: Set = Set { name: "private", fields: &[4], ranges: true, dynamic: false };
/// Who has how many connections.
pub(super) const CONNECTIONS: Set = Set { name: "connections", fields: &[4], ranges: false, dynamic: true };
/// Always empty: that it is there says that forwarding was off before us.
pub(super) const FORWARDING_NOTE: Set =
    Set { name: "forwarding-was-off", fields: &[4], ranges: false, dynamic: false };

/// All sets of the rules.
pub(super) const SETS: [Set; 8] =
    [SANDBOXES, EXACT, EXACT_PORTS, RANGES, RANGE_PORTS, NEVER, PRIVATE, CONNECTIONS];
/// Those that hold what single sandboxes are allowed; the source is the first field of each.
pub(super) const HOLES: [Set; 4] = [EXACT, EXACT_PORTS, RANGES, RANGE_PORTS];

/// The most connections one sandbox may have at once. Connection tracking holds 65,536 to 262,144 of all on a
/// usual machine, and a full table stops the machine's own connections.
pub(super) const MOST_CONNECTIONS: u32 = 2048;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// `AF_INET`, as `meta nfproto` tells it.
const IPV4: [u8; 1] = [2];
/// An IPv4 packet without options: with them, its way could be prescribed.
const PLAIN_HEADER: [u8; 1] = [0x45];
const DNS: [u8; 2] = 53_u16.to_be_bytes();
/// The kind of a route to another machine, as `RTN_UNICAST`.
const UNICAST: [u8; 4] = 1_u32.to_ne_bytes();
/// Connection tracking's bits for "established" and "related".
const KNOWN: [u8; 4] = 6_u32.to_ne_bytes();

/// A chain with its rules.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

/// All chains; a chain comes after those it goes to.
pub(super) fn chains(prefix: &str, addresses: Addresses, counting: bool) -> Vec<Chain> {
    let filter = |number, priority| Some(Hook { kind: "filter", number, priority });
    let arriving = Rule::new().equals(Field::InInterface, prefix.as_bytes()).go_to("from-sandbox");
    vec![
        Chain { name: "refuse", hook: None, rules: refuse() },
        Chain { name: "from-sandbox", hook: None, rules: from_sandbox(addresses) },
        // Prerouting, `raw`: before connection tracking and before any translation of destinations.
        Chain { name: "guard", hook: filter(0, -300), rules: vec![arriving] },
        Chain { name: "forward", hook: filter(2, 0), rules: forward(prefix, counting) },
        // Postrouting, `srcnat`.
        Chain {
            name: "masquerade",
            hook: Some(Hook { kind: "nat", number: 4, priority: 100 }),
            rules: vec![masquerade(addresses)],
        },
    ]
}

/// An answer at once, so that programs do not wait for what never comes.
fn refuse() -> Vec<Rule> {
    vec![Rule::new().equals(Field::Protocol, &[TCP]).reset(), Rule::new().forbid()]
}

fn from_sandbox(addresses: Addresses) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new().differs(Field::Family, &IPV4).drop(),
        Rule::new().differs(Field::HeaderLength, &PLAIN_HEADER).drop(),
        // No other address than its own.
        Rule::new().in_set(&[Field::InInterface, Field::Source], SANDBOXES.name, false).drop(),
    ];
    for protocol in [UDP, TCP] {
        let to_gateway = Rule::new().equals(Field::Destination, &addresses.gateway().octets());
        rules.push(to_gateway.equals(Field::Protocol, &[protocol]).equals(Field::Port, &DNS).accept());
    }
    if let Some(probe) = addresses.address(Seat::Probe) {
        let proof = Rule::new().equals(Field::Source, &probe.octets());
        rules.push(proof.equals(Field::Destination, &addresses.outside().octets()).accept());
    }
    let [mask, first] = range(addresses);
    let here = [Field::Source, Field::Destination];
    let port = [Field::Source, Field::Destination, Field::Protocol, Field::Port];
    rules.extend([
        // Other sandboxes, whatever was allowed: who has which address is nothing to build on.
        Rule::new().masked(Field::Destination, mask, first, true).go_to("refuse"),
        Rule::new().in_set(&here, EXACT.name, true).accept(),
        Rule::new().in_set(&port, EXACT_PORTS.name, true).accept(),
        // Every address of this machine, and broadcasts.
        Rule::new().differs(Field::DestinationKind, &UNICAST).go_to("refuse"),
        Rule::new().in_set(&[Field::Destination], NEVER.name, true).go_to("refuse"),
        Rule::new().in_set(&here, RANGES.name, true).accept(),
        Rule::new().in_set(&port, RANGE_PORTS.name, true).accept(),
        Rule::new().in_set(&[Field::Destination], PRIVATE.name, true).go_to("refuse"),
    ]);
    rules
}

fn forward(prefix: &str, counting: bool) -> Vec<Rule> {
    let prefix = prefix.as_bytes();
    let into = || Rule::new().equals(Field::OutInterface, prefix);
    let new = Rule::new().equals(Field::InInterface, prefix).masked(Field::State, KNOWN, [0; 4], true);
    let mut rules = vec![
        into().equals(Field::InInterface, prefix).drop(),
        // Only answers come in.
        into().masked(Field::State, KNOWN, [0; 4], false).accept(),
        into().drop(),
    ];
    if counting {
        rules.push(new.more_connections(CONNECTIONS.name, MOST_CONNECTIONS).go_to("refuse"));
    }
    rules
}

fn masquerade(addresses: Addresses) -> Rule {
    let [mask, first] = range(addresses);
    Rule::new()
        .masked(Field::Source, mask, first, true)
        .masked(Field::Destination, mask, first, false)
        .masquerade()
}

/// Mask and first address of the range.
fn range(addresses: Addresses) -> [[u8; 4]; 2] {
    let subnet = addresses.0;
    let rest = u32::MAX.checked_shr(subnet.prefix().into()).unwrap_or(0);
    [(!rest).to_be_bytes(), subnet.address().octets()]
}
