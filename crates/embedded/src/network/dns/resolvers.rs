//! Whom the machine itself asks for names, read again when it changes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// How many of a machine's name servers are asked, as the C library does.
const MOST: usize = 3;
/// How long what was read is good without another look.
const FRESH: Duration = Duration::from_secs(1);
const PORT: u16 = 53;

/// The machine's name servers.
#[derive(Debug)]
pub(super) struct Resolvers {
    path: PathBuf,
    /// Never asked: ourselves.
    own: Ipv4Addr,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    at: Instant,
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl Resolvers {
    pub(super) fn new(path: PathBuf, own: Ipv4Addr) -> Self {
        let (changed, servers) = look(&path, own);
        Self { path, own, read: Mutex::new(Read { at: Instant::now(), changed, servers }) }
    }

    /// Whom to ask now, in order.
    pub(super) fn current(&self) -> Vec<SocketAddr> {
        let mut read = self.read.lock();
        if read.at.elapsed() >= FRESH {
            read.at = Instant::now();
            if changed(&self.path) != read.changed {
                (read.changed, read.servers) = look(&self.path, self.own);
            }
        }
        read.servers.clone()
    }
}

fn changed(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn look(path: &PathBuf, own: Ipv4Addr) -> (Option<SystemTime>, Vec<SocketAddr>) {
    // The time before the content: what changes in between is seen the next time.
    let changed = changed(path);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    (changed, parse(&text, own))
}

fn parse(text: &str, own: Ipv4Addr) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    let mut servers: Vec<_> = servers.take(MOST).filter(|server| *server != IpAddr::V4(own)).collect();
    if servers.is_empty() {
        // As the C library does.
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers.into_iter().map(|server| SocketAddr::new(server, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_c_library_does() {
        let check = |text: &str, expect: &[&str]| {
            let expect: Vec<SocketAddr> = expect.iter().map(|one| one.parse().unwrap()).collect();
            assert_eq!(parse(text, Ipv4Addr::new(10, 213, 0, 1)), expect, "{text:?}");
        };
        check("# x\nsearch a.example\nnameserver 192.0.2.53\n", &["192.0.2.53:53"]);
        check(
            "nameserver\t192.0.2.1\nnameserver 2001:db8::1\noptions edns0",
            &["192.0.2.1:53", "[2001:db8::1]:53"],
        );
        check(
            "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
            &["1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"],
        );
        check("nameserver fe80::1%eth0\nnameservers 1.1.1.1", &["127.0.0.1:53"]);
        check("nameserver 10.213.0.1", &["127.0.0.1:53"]);
        check("", &["127.0.0.1:53"]);
    }
}
