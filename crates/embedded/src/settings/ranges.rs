//! Ranges of ports and of addresses.

use std::fmt;
use std::net::Ipv4Addr;

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Below the NodePorts of Kubernetes (30000-32767) and the ports that Linux gives to outgoing connections
    /// (32768-60999): `20000-29999`.
    pub const DEFAULT: Self = Self { first: 20_000, last: 29_999 };

    /// A range; `None` unless `1 <= first <= last`.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first >= 1 && first <= last).then_some(Self { first, last })
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl std::str::FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "must be two ports, the smaller one first, like 20000-29999";
        let (first, last) = text.split_once('-').ok_or(expected)?;
        let port = |text: &str| text.trim().parse().map_err(|_| expected);
        Self::new(port(first)?, port(last)?).ok_or(expected)
    }
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A range that holds from 4 to 2^24 addresses, named by its first; `None` otherwise.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let good = (8..=30).contains(&prefix) && address.to_bits() & host_bits == 0;
        good.then_some(Self { address, prefix })
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The length of its prefix in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses are no sandbox's: the first and the last of the range, the gateway, and the two that
    /// forwarding is proven with.
    pub const OWN: u32 = 5;

    /// How many addresses there are.
    #[must_use]
    pub fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// How many sandboxes there is room for.
    #[must_use]
    pub fn capacity(self) -> u32 {
        // Numbers of sandboxes have at most six digits: a name of an interface has at most fifteen characters.
        self.size().saturating_sub(Self::OWN).min(1_000_000)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Subnet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "must be an IPv4 range, named by its first address, with a prefix from 8 to 30, like 100.124.0.0/16";
        let (address, prefix) = text.split_once('/').ok_or(expected)?;
        let address = address.parse().map_err(|_| expected)?;
        Self::new(address, prefix.parse().map_err(|_| expected)?).ok_or(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_is_read_as_it_is_written() {
        for good in ["20000-29999", "1-65535", "7-7"] {
            assert_eq!(good.parse::<PortRange>().unwrap().to_string(), good);
        }
        for bad in ["", "20000", "2-1", "0-5", "1-65536", "a-b", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_subnet_is_named_by_its_first_address() {
        for good in ["10.0.0.0/8", "100.124.0.0/16", "192.168.7.4/30"] {
            assert_eq!(good.parse::<Subnet>().unwrap().to_string(), good);
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/31", "0.0.0.0/0", "10.0.0.0/40", "fd00::/8", "10.0.0.0"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?}");
        }
    }
}
