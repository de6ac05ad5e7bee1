//! What one sandbox may reach, once request, settings and machine are known.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use stockade_core::egress::{AllowRule, Destination, EgressPolicy, NetworkMode};

/// The most holes one sandbox may have: each is an element in the kernel's tables.
pub const MAX_HOLES: usize = 64;

/// What one sandbox may reach, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResolvedPolicy {
    /// Its own loopback only.
    Isolated,
    /// The internet, and these destinations that are closed otherwise.
    Open(Vec<Hole>),
}

/// A destination that is closed in open networks and not to this sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The first address.
    pub first: Ipv4Addr,
    /// How many leading bits of it count. With all 32 it is one address named exactly, and only such a hole
    /// leads to an address of this machine or to a link-local one (metadata services).
    pub prefix: u8,
    /// Which TCP or UDP port; `None` is everything.
    pub port: Option<u16>,
}

impl Hole {
    /// The last address.
    #[must_use]
    pub fn last(&self) -> Ipv4Addr {
        let rest = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.first.to_bits() | rest)
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)?;
        if let Some(port) = self.port { write!(f, " port {port}") } else { Ok(()) }
    }
}

impl fmt::Display for ResolvedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated => f.write_str("loopback only"),
            Self::Open(holes) => {
                f.write_str(
                    "the internet; not private ranges, metadata services, this machine or other sandboxes",
                )?;
                for (index, hole) in holes.iter().enumerate() {
                    write!(f, "{} {hole}", if index == 0 { ", except" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A mode that is not built.
    #[error(
        "network mode `allowlist` is not built for sandboxes on one machine yet: use `open` or `isolated`"
    )]
    Allowlist,
    /// Rules in a mode that has no use for them.
    #[error(
        "an isolated sandbox reaches nothing, so `allow` must be empty: leave it out, or use mode `open`"
    )]
    RulesInIsolated,
    /// A rule by name.
    #[error(
        "`{0}` is a name: names are for mode `allowlist`, which is not built yet; in mode `open`, `allow` takes ranges like 10.0.0.0/8"
    )]
    Name(String),
    /// A rule that changes nothing.
    #[error(
        "in mode `open` everything public is reachable, so a port alone allows nothing more: name a range too"
    )]
    Anywhere,
    /// A rule for IPv6.
    #[error("{0}/{1} is an IPv6 range, and sandboxes on one machine have IPv4 only")]
    Version6(IpAddr, u8),
    /// A range that is not one.
    #[error("{0}/{1} is no range: the prefix is longer than the address, or bits are set behind it")]
    Range(IpAddr, u8),
    /// A rule for addresses that are the sandbox's own.
    #[error(
        "{0} is the sandbox's own loopback, which it always reaches: to let it reach this machine, name an address of the machine's, exactly, and have the service listen there"
    )]
    Loopback(Hole),
    /// Too many rules.
    #[error("{0} rules in `allow`, and at most {MAX_HOLES} are taken")]
    TooMany(usize),
}

/// Reads a policy. `default` is the mode of a request that names none.
pub(crate) fn resolve(policy: &EgressPolicy, default: NetworkMode) -> Result<ResolvedPolicy, PolicyError> {
    match policy.mode.unwrap_or(default) {
        NetworkMode::Isolated if policy.allow.is_empty() => Ok(ResolvedPolicy::Isolated),
        NetworkMode::Isolated => Err(PolicyError::RulesInIsolated),
        NetworkMode::Allowlist => Err(PolicyError::Allowlist),
        NetworkMode::Open if policy.allow.len() > MAX_HOLES => Err(PolicyError::TooMany(policy.allow.len())),
        NetworkMode::Open => {
            policy.allow.iter().map(hole).collect::<Result<_, _>>().map(ResolvedPolicy::Open)
        }
    }
}

fn hole(rule: &AllowRule) -> Result<Hole, PolicyError> {
    let (address, prefix) = match &rule.to {
        Destination::Range(address, prefix) => (*address, *prefix),
        Destination::Anywhere => return Err(PolicyError::Anywhere),
        Destination::Name(name) => return Err(PolicyError::Name(name.clone())),
        Destination::NamesBelow(name) => return Err(PolicyError::Name(format!("*.{name}"))),
    };
    let IpAddr::V4(first) = address else { return Err(PolicyError::Version6(address, prefix)) };
    let hole = Hole { first, prefix, port: rule.port };
    let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    if prefix > 32 || first.to_bits() & rest != 0 {
        return Err(PolicyError::Range(address, prefix));
    }
    if hole.first.is_loopback() && hole.last().is_loopback() {
        return Err(PolicyError::Loopback(hole));
    }
    Ok(hole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_policy(mode: Option<NetworkMode>, to: Option<Destination>) -> EgressPolicy {
        EgressPolicy { mode, allow: to.map(|to| AllowRule { to, port: Some(443) }).into_iter().collect() }
    }

    fn mk_range(text: &str, prefix: u8) -> Option<Destination> {
        Some(Destination::Range(text.parse().unwrap(), prefix))
    }

    #[test]
    fn the_default_is_for_those_who_name_no_mode() {
        let check = |mode, default, expect| {
            assert_eq!(resolve(&mk_policy(mode, None), default), Ok(expect), "{mode:?} {default:?}");
        };
        check(None, NetworkMode::Isolated, ResolvedPolicy::Isolated);
        check(None, NetworkMode::Open, ResolvedPolicy::Open(vec![]));
        check(Some(NetworkMode::Isolated), NetworkMode::Open, ResolvedPolicy::Isolated);
        check(Some(NetworkMode::Open), NetworkMode::Isolated, ResolvedPolicy::Open(vec![]));
    }

    #[test]
    fn a_rule_that_would_do_nothing_is_refused() {
        let check = |mode, to, expect: &str| {
            let error = resolve(&mk_policy(Some(mode), to), NetworkMode::Open).unwrap_err();
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(NetworkMode::Isolated, mk_range("10.0.0.0", 8), "isolated");
        check(NetworkMode::Open, Some(Destination::Anywhere), "a port alone");
        check(NetworkMode::Open, Some(Destination::NamesBelow("a.example".into())), "`*.a.example`");
        check(NetworkMode::Open, mk_range("fd00::", 8), "IPv6");
        check(NetworkMode::Open, mk_range("127.0.0.1", 32), "127.0.0.1/32 port 443 is the sandbox's own");
        check(NetworkMode::Open, mk_range("127.0.0.0", 8), "loopback");
        check(NetworkMode::Open, mk_range("10.0.0.1", 8), "no range");
        check(NetworkMode::Open, mk_range("10.0.0.0", 33), "no range");
        check(NetworkMode::Allowlist, None, "not built");
    }

    #[test]
    fn a_range_ends_where_its_prefix_says() {
        for (first, prefix, last) in [
            ("10.0.0.0", 8, "10.255.255.255"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("0.0.0.0", 0, "255.255.255.255"),
        ] {
            let hole = Hole { first: first.parse().unwrap(), prefix, port: None };
            assert_eq!(hole.last().to_string(), last);
        }
    }
}
