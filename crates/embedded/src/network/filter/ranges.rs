//! Which destinations are closed to sandboxes.

use std::net::Ipv4Addr;

/// Closed to all but those for whom exactly one address was allowed: what speaks for the machine or its cloud,
/// and what is no destination at all. First and last address; sorted, and none touches another.
pub(crate) const NEVER: [(Ipv4Addr, Ipv4Addr); 7] = [
    // "This network" (RFC 791).
    (Ipv4Addr::new(0, 0, 0, 0), Ipv4Addr::new(0, 255, 255, 255)),
    // Metadata of Alibaba Cloud.
    (Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(100, 100, 100, 200)),
    // Loopback.
    (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255)),
    // Azure's wire server: a public address with the machine's secrets.
    (Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(168, 63, 129, 16)),
    // Link-local (RFC 3927): the metadata services of most clouds.
    (Ipv4Addr::new(169, 254, 0, 0), Ipv4Addr::new(169, 254, 255, 255)),
    // IETF protocol assignments (RFC 6890); Oracle's old metadata service is 192.0.0.192.
    (Ipv4Addr::new(192, 0, 0, 0), Ipv4Addr::new(192, 0, 0, 255)),
    // Multicast, reserved, broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), Ipv4Addr::new(255, 255, 255, 255)),
];

/// Closed to all but those for whom a range was allowed that holds the destination. Sorted, and none touches
/// another.
pub(crate) const PRIVATE: [(Ipv4Addr, Ipv4Addr); 5] = [
    // Private (RFC 1918).
    (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 255, 255, 255)),
    // Shared by carriers and overlay networks (RFC 6598).
    (Ipv4Addr::new(100, 64, 0, 0), Ipv4Addr::new(100, 127, 255, 255)),
    (Ipv4Addr::new(172, 16, 0, 0), Ipv4Addr::new(172, 31, 255, 255)),
    (Ipv4Addr::new(192, 168, 0, 0), Ipv4Addr::new(192, 168, 255, 255)),
    // Benchmarks between networks (RFC 2544), and what some proxies give out in place of real addresses.
    (Ipv4Addr::new(198, 18, 0, 0), Ipv4Addr::new(198, 19, 255, 255)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_apart() {
        for list in [NEVER.as_slice(), PRIVATE.as_slice()] {
            assert!(list.iter().all(|(first, last)| first <= last));
            assert!(list.windows(2).all(|pair| pair[0].1.to_bits() + 1 < pair[1].0.to_bits()));
        }
    }
}
