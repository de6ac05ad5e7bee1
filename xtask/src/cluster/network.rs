//! The cable between host and cluster: a pair of interfaces with two addresses that nothing else
//! on the host uses. The host gets one interface and one connected route, no rule and no sysctl.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::Layout;
use super::namespace::Holder;
use crate::run;

/// Addresses of Pods; only inside of the cluster's namespace, so it cannot collide with the host's.
pub const POD_NETWORK: &str = "10.200.0.0/22";
/// Addresses of Services; inside of the namespace too.
pub const SERVICE_NETWORK: &str = "10.201.0.0/20";
/// The Service `kubernetes`: the first address of [`SERVICE_NETWORK`].
pub const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
/// The cluster's end of the cable.
const NODE_INTERFACE: &str = "eth0";

/// The range for tests between two networks (RFC 2544): nobody's machine has an address in it.
const RANGE: Network = Network { address: Ipv4Addr::new(198, 18, 0, 0), prefix: 15 };
const PAIR_PREFIX: u32 = 30;

/// The two ends of the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The host's end.
    pub host: Ipv4Addr,
    /// The cluster's end: the node's address.
    pub node: Ipv4Addr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: Ipv4Addr,
    prefix: u32,
}

impl Network {
    const fn mask(prefix: u32) -> u32 {
        if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { address: address.parse().ok()?, prefix })
    }
}

/// A free pair: the search begins at a place that follows from `seed`, so that two clusters that
/// start at once rarely want the same one.
fn choose(used: &[Network], seed: u32) -> Option<Pair> {
    let size = 1 << (32 - PAIR_PREFIX);
    let pairs = 1 << (PAIR_PREFIX - RANGE.prefix);
    (0..pairs)
        .map(|step| Network {
            address: Ipv4Addr::from_bits(RANGE.address.to_bits() + (seed.wrapping_add(step) % pairs) * size),
            prefix: PAIR_PREFIX,
        })
        .find(|candidate| !used.iter().any(|network| network.overlaps(*candidate)))
        .map(|network| Pair {
            host: Ipv4Addr::from_bits(network.address.to_bits() + 1),
            node: Ipv4Addr::from_bits(network.address.to_bits() + 2),
        })
}

/// Every network that the host has an address in or a route to. A default route covers all and
/// says nothing.
fn used_on_host() -> Result<Vec<Network>> {
    let routes = json(&["ip", "-json", "-4", "route", "show", "table", "all"])?;
    let addresses = json(&["ip", "-json", "-4", "address", "show"])?;
    let routed = items(&routes).filter_map(|route| Network::parse(route["dst"].as_str()?));
    let assigned = items(&addresses).flat_map(|link| items(&link["addr_info"])).filter_map(|address| {
        let prefix = u32::try_from(address["prefixlen"].as_u64()?).ok()?;
        Some(Network { address: address["local"].as_str()?.parse().ok()?, prefix })
    });
    Ok(routed.chain(assigned).filter(|network| network.prefix > 0).collect())
}

fn json(line: &[&str]) -> Result<Value> {
    let text = run::output(&mut run::command(line))?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", line.join(" ")))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Chooses addresses and lays the cable.
///
/// # Errors
/// When every pair is taken or `ip` refuses.
pub fn connect(layout: &Layout, holder: &Holder) -> Result<Pair> {
    let seed = u32::from_str_radix(layout.id(), 16).unwrap_or_default();
    let pair = choose(&used_on_host()?, seed).context(
        "every address pair in 198.18.0.0/15 is routed on this machine; remove a route to that range",
    )?;
    let host = layout.host_interface();
    let pid = holder.identity.pid.to_string();
    let on_host = |line: &[&str]| run::output(&mut run::command(line));
    on_host(&["ip", "link", "add", &host, "type", "veth", "peer", "name", NODE_INTERFACE, "netns", &pid])?;
    on_host(&["ip", "address", "add", &format!("{}/{PAIR_PREFIX}", pair.host), "dev", &host])?;
    on_host(&["ip", "link", "set", &host, "up"])?;
    let batch = [
        "link set lo up".to_owned(),
        format!("address add {}/{PAIR_PREFIX} dev {NODE_INTERFACE}", pair.node),
        format!("link set {NODE_INTERFACE} up"),
        // A destination needs a route before kube-proxy's rules can rewrite it. There is no
        // default route: what is outside fails at once instead of after a time-out.
        format!("route add {SERVICE_NETWORK} dev {NODE_INTERFACE}"),
    ];
    for line in batch {
        holder.run(&format!("ip {line}"))?;
    }
    holder.run("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    Ok(pair)
}

/// Lets Pods reach the host's end of the cable: the host has no route to their addresses.
///
/// # Errors
/// When iptables refuses.
pub fn let_pods_reach_the_host(holder: &Holder) -> Result<()> {
    holder
        .run(&format!("iptables -t nat -A POSTROUTING -s {POD_NETWORK} -o {NODE_INTERFACE} -j MASQUERADE"))?;
    Ok(())
}

/// Whether the host's end of the cable is there.
#[must_use]
pub fn is_connected(layout: &Layout) -> bool {
    std::path::Path::new("/sys/class/net").join(layout.host_interface()).exists()
}

/// Removes the cable, both ends of it.
///
/// # Errors
/// When `ip` refuses although the interface is there.
pub fn disconnect(layout: &Layout) -> Result<()> {
    if !is_connected(layout) {
        return Ok(());
    }
    let result = run::output(&mut run::command(&["ip", "link", "delete", &layout.host_interface()]));
    // The namespace's end takes the host's with it at any moment.
    if is_connected(layout) { result.map(drop) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::parse(text).unwrap()).collect()
    }

    fn check(used: &[&str], seed: u32, expect: Option<&str>) {
        let node = choose(&networks(used), seed).map(|pair| pair.node.to_string());
        assert_eq!(node.as_deref(), expect);
    }

    #[test]
    fn the_seed_says_where_the_search_begins() {
        check(&[], 0, Some("198.18.0.2"));
        check(&[], 1, Some("198.18.0.6"));
        check(&[], u32::MAX, Some("198.19.255.254"));
    }

    #[test]
    fn a_pair_that_the_host_uses_is_passed_over() {
        check(&["198.18.0.0/30"], 0, Some("198.18.0.6"));
        check(&["198.18.0.1"], 0, Some("198.18.0.6"));
        check(&["198.18.0.0/16"], 0, Some("198.19.0.2"));
    }

    #[test]
    fn a_host_that_uses_the_whole_range_has_no_pair_left() {
        check(&["198.18.0.0/15"], 7, None);
        check(&["198.0.0.0/8"], 7, None);
    }

    #[test]
    fn host_and_node_share_one_pair() {
        let pair = choose(&[], 5).unwrap();
        assert_eq!(pair.host.to_bits() + 1, pair.node.to_bits());
    }

    #[test]
    fn routes_are_read_as_ip_prints_them() {
        assert_eq!(Network::parse("default"), None);
        assert_eq!(
            Network::parse("10.1.2.3"),
            Some(Network { address: Ipv4Addr::new(10, 1, 2, 3), prefix: 32 })
        );
    }
}
