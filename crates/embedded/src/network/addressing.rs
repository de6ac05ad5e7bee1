//! Names and addresses that follow from the machine's name, the range and a number, and from nothing else: so
//! what is left of a crash is recognised without any record of it.
//!
//! The number is not the sandbox's slot: networks are made before it is known whose they will be, and whose
//! they are is written in the filter.

use std::net::Ipv4Addr;

use crate::settings::Subnet;

/// The interface of a sandbox, as the sandbox sees it.
pub(crate) const INSIDE: &str = "eth0";

/// The names of everything of ours in a kernel that we may share with others of our kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    tag: String,
    /// The nf_tables table.
    pub(crate) table: String,
}

impl Names {
    pub(crate) fn new(machine: &str) -> Self {
        Self { tag: tag(machine), table: format!("{TABLE_PREFIX}{machine}") }
    }

    /// What the interfaces of all sandboxes begin with, and no other.
    pub(crate) fn prefix(&self) -> String {
        format!("st{}-", self.tag)
    }

    /// The machine's end of a sandbox's interface.
    pub(crate) fn interface(&self, seat: Seat) -> String {
        match seat {
            Seat::Sandbox(number) => format!("{}{number}", self.prefix()),
            Seat::Probe => format!("{}p", self.prefix()),
        }
    }

    /// The seat of an interface; `None` when it is no sandbox's.
    pub(crate) fn seat(&self, interface: &str) -> Option<Seat> {
        match interface.strip_prefix(&self.prefix())? {
            "p" => Some(Seat::Probe),
            number => number.parse().ok().map(Seat::Sandbox),
        }
    }

    /// The interface that holds the gateway's address, and its other end, which nothing is sent to.
    pub(crate) fn gateway(&self) -> [String; 2] {
        [format!("sg{}", self.tag), format!("sh{}", self.tag)]
    }

    /// The interface towards what stands for the outside while forwarding is proven.
    pub(crate) fn outside(&self) -> String {
        format!("so{}", self.tag)
    }
}

/// What the tables of all machines begin with.
pub(crate) const TABLE_PREFIX: &str = "stockade-";

/// Six characters that stand for the machine's name (FNV-1a, thirty bits of it): readable where it is short
/// enough to be shown would be nicer, and two names could then end in one.
fn tag(machine: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = machine.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..6).map(|at| char::from(ALPHABET[usize::try_from(hash >> (5 * at) & 31).unwrap_or(0)])).collect()
}

/// A place in the range: one interface, one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    /// A sandbox's, or one that is kept ready.
    Sandbox(u32),
    /// The one that forwarding is proven with.
    Probe,
}

/// Who has which address of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Subnet);

impl Addresses {
    /// Where sandboxes send what they send: the machine, which answers name queries there and nothing else.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// How many sandboxes there is room for.
    pub(crate) fn capacity(self) -> u32 {
        self.0.capacity()
    }

    /// The address of a seat; `None` when the range is too small.
    pub(crate) fn address(self, seat: Seat) -> Option<Ipv4Addr> {
        match seat {
            Seat::Sandbox(number) => (number < self.capacity()).then(|| self.at(number + 2)),
            Seat::Probe => Some(self.at(self.size() - 3)),
        }
    }

    /// What stands for the outside while forwarding is proven.
    pub(crate) fn outside(self) -> Ipv4Addr {
        self.at(self.size() - 2)
    }

    fn size(self) -> u32 {
        self.0.size()
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.address().to_bits() + offset)
    }
}

/// The hardware addresses of the two ends of an interface: locally administered, and known beforehand, so
/// that neither end has to ask for the other's.
pub(crate) fn hardware(address: Ipv4Addr) -> Ends {
    let [a, b, c, d] = address.octets();
    Ends { machine: [0x06, 0x53, a, b, c, d], sandbox: [0x02, 0x53, a, b, c, d] }
}

/// The hardware addresses of an interface's ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) machine: [u8; 6],
    pub(crate) sandbox: [u8; 6],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_told_apart() {
        let one = Names::new("default");
        let other = Names::new("another-machine-with-a-long-name");
        for names in [&one, &other] {
            for seat in [Seat::Sandbox(0), Seat::Sandbox(999_999), Seat::Probe] {
                let interface = names.interface(seat);
                assert!(interface.len() <= 15, "{interface}");
                assert_eq!(names.seat(&interface), Some(seat));
            }
            assert_eq!(names.seat(&names.outside()), None);
        }
        assert_eq!(one.seat(&other.interface(Seat::Sandbox(1))), None);
    }

    #[test]
    fn no_two_have_one_address() {
        let addresses = Addresses("10.0.0.0/28".parse().unwrap());
        let mut all: Vec<_> =
            (0..addresses.capacity()).filter_map(|n| addresses.address(Seat::Sandbox(n))).collect();
        assert_eq!(all.len(), 11);
        assert_eq!(addresses.address(Seat::Sandbox(11)), None);
        all.extend([addresses.gateway(), addresses.outside(), addresses.address(Seat::Probe).unwrap()]);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 14);
        assert_eq!(Addresses("10.0.0.0/30".parse().unwrap()).capacity(), 0);
    }
}
