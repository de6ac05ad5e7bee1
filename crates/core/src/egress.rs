//! What a sandbox may reach over the network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// The egress policy of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EgressPolicy {
    /// What is reachable at all; `None` is left to the backend's default.
    pub mode: Option<NetworkMode>,
    /// What is reachable beyond what the mode gives: ranges and ports in [`NetworkMode::Open`], names too in
    /// [`NetworkMode::Allowlist`]; nothing in [`NetworkMode::Isolated`].
    pub allow: Vec<AllowRule>,
}

/// How much of the network a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Its own loopback only.
    Isolated,
    /// The internet; not private ranges, metadata services, the host, or other sandboxes, unless allowed.
    Open,
    /// Named destinations only.
    Allowlist,
}

impl NetworkMode {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Isolated, Self::Open, Self::Allowlist];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Open => "open",
            Self::Allowlist => "allowlist",
        }
    }

    /// The mode of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One destination that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AllowRule {
    /// Where to.
    pub to: Destination,
    /// Which TCP or UDP port; `None` is every port.
    pub port: Option<u16>,
}

/// Where an allowed connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Everywhere the mode reaches.
    Anywhere,
    /// A range of addresses: its first address and the length of its prefix in bits.
    Range(IpAddr, u8),
    /// A name, exactly.
    Name(String),
    /// Every name below this one.
    NamesBelow(String),
}

/// Why a text does not name a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Not a port.
    #[error("must have a port from 1 to 65535 after its last colon")]
    Port,
    /// Not a range of addresses.
    #[error("must be the first address of a range, a slash and the length of the prefix, like 192.0.2.0/24")]
    Range,
    /// Neither address, range, name, nor port.
    #[error(
        "must be a name, *. and a name, an address, a range like 192.0.2.0/24, and after it perhaps a colon and a port, like example.com:443 or :443"
    )]
    Destination,
}

impl FromStr for AllowRule {
    type Err = RuleError;

    /// Reads `example.com`, `*.example.com`, `192.0.2.1`, `192.0.2.0/24`, `[2001:db8::/32]`, each with `:port` or
    /// without, and `:port` alone.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        if let Ok(to) = range(text) {
            return Ok(Self { to, port: None });
        }
        let (to, port) = match text.rsplit_once(':') {
            Some((to, port)) => (to, Some(port)),
            None => (text, None),
        };
        let port = match port {
            Some(port) if port.len() <= 5 && port.bytes().all(|c| c.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port != 0).ok_or(RuleError::Port)?)
            }
            Some(_) if text.ends_with(']') => None,
            Some(_) => return Err(RuleError::Port),
            None => None,
        };
        let to = if port.is_none() { text } else { to };
        Ok(Self { to: destination(to, port.is_some())?, port })
    }
}

fn destination(text: &str, has_port: bool) -> Result<Destination, RuleError> {
    if let Some(inner) = text.strip_prefix('[') {
        return range(inner.strip_suffix(']').ok_or(RuleError::Range)?);
    }
    if text.is_empty() && has_port {
        return Ok(Destination::Anywhere);
    }
    if text.contains('/') {
        return range(text);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Destination::Range(address, full_prefix(address)));
    }
    let (name, wild) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let name = name.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that ends in a number is a mistyped address.
    let looks_like_address =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if name.len() > 253 || !name.split('.').all(is_label) || looks_like_address {
        return Err(RuleError::Destination);
    }
    Ok(if wild { Destination::NamesBelow(name) } else { Destination::Name(name) })
}

/// An address or a range of addresses, named by its first.
fn range(text: &str) -> Result<Destination, RuleError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| RuleError::Range)?;
    let full = full_prefix(address);
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= full).ok_or(RuleError::Range)?,
        None => full,
    };
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let host_bits = width - u32::from(prefix);
    let is_first = host_bits == 0 || bits.trailing_zeros() >= host_bits || bits == 0;
    if is_first { Ok(Destination::Range(address, prefix)) } else { Err(RuleError::Range) }
}

fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for AllowRule {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Destination::Anywhere => {}
            Destination::Range(IpAddr::V6(address), prefix) => write!(f, "[{address}/{prefix}]")?,
            Destination::Range(address, prefix) => write!(f, "{address}/{prefix}")?,
            Destination::Name(name) => f.write_str(name)?,
            Destination::NamesBelow(name) => write!(f, "*.{name}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let rule = text.parse::<AllowRule>();
        assert_eq!(rule.as_ref().ok().map(ToString::to_string).as_deref(), expect, "{text:?}: {rule:?}");
        if let Ok(rule) = rule {
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text:?}");
        }
    }

    #[test]
    fn a_destination_is_a_name_a_range_or_a_port() {
        check("example.com", Some("example.com"));
        check("*.Example.com:443", Some("*.example.com:443"));
        check(":8080", Some(":8080"));
        check("192.0.2.1", Some("192.0.2.1/32"));
        check("192.0.2.0/24:53", Some("192.0.2.0/24:53"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("2001:db8::/32", Some("[2001:db8::/32]"));
        check("[2001:db8::/32]:443", Some("[2001:db8::/32]:443"));
        check("[2001:db8::1]", Some("[2001:db8::1/128]"));
        check("::1", Some("[::1/128]"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "*",
            "*.",
            ".",
            "a..b",
            "-a.com",
            "a b",
            "a/b",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "300.1.1.1",
            "a:0",
            "a:65536",
            "a:b",
            ":",
            "[2001:db8::/32",
            "[a]:1",
            "*.*.a",
            "a\n",
            "http://a",
            "1.2.3",
        ] {
            check(bad, None);
        }
    }
}
