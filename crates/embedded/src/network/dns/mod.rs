//! Names for sandboxes: queries that arrive at the gateway are passed on to the machine's own name servers.
//!
//! A sandbox may send no packet to the machine but these, so this is what it can attack. Therefore: what is
//! passed on is one well-formed question; every query has a deadline, and each sandbox and all together a
//! bound, beyond which the answer is "failed" at once; an answer counts only from the server that was asked,
//! to the very question. A sandbox cannot say whom to ask.
//!
//! Answers are not searched for addresses that are closed. The filter judges where packets go, whatever name
//! led there, so a name that points to a closed address (DNS rebinding) leads nowhere; and a name of the
//! operator's own network has to resolve for a sandbox that was allowed to reach it. What names the machine's
//! name servers know is no secret to sandboxes.

mod bounds;
mod message;
mod resolvers;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::settings::Subnet;
use bounds::{Bound, Turn};
use message::{No, Query};
use resolvers::Resolvers;

/// The port of name servers.
pub const PORT: u16 = 53;
/// How long an asker waits for an answer, whichever server it comes from. Resolvers ask again after five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);
/// How long a connection may be idle, and how long it may take to read an answer.
const IDLE: Duration = Duration::from_secs(5);
/// The longest query by UDP; a name has 255 bytes, and what is more is options.
const LONGEST_QUERY: usize = 1232;
/// How many questions one connection may ask.
const QUESTIONS: usize = 64;

/// How names are served.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Whose queries are answered: the addresses of sandboxes.
    pub clients: Subnet,
    /// The file that names the machine's name servers, read again when it changes: `/etc/resolv.conf`.
    pub servers: PathBuf,
    /// The most queries of one sandbox at once.
    pub queries_each: usize,
    /// The most queries of all at once.
    pub queries: usize,
    /// The most TCP connections of one sandbox at once.
    pub connections_each: usize,
    /// The most TCP connections of all at once.
    pub connections: usize,
}

impl DnsOptions {
    /// What is usual, for sandboxes with these addresses.
    #[must_use]
    pub fn new(clients: Subnet) -> Self {
        Self {
            clients,
            servers: "/etc/resolv.conf".into(),
            queries_each: 32,
            queries: 512,
            connections_each: 4,
            connections: 128,
        }
    }
}

/// The sockets that queries arrive at.
#[derive(Debug)]
pub struct DnsSockets {
    gateway: Ipv4Addr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Why names are not served.
#[derive(Debug, thiserror::Error)]
#[error("names cannot be served on {address}")]
pub struct DnsError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl DnsSockets {
    /// Opens the sockets on the gateway of open networks ([`super::Network::name_server`]), which is there as
    /// soon as those are. Needs the right to listen below port 1024.
    ///
    /// # Errors
    /// When somebody else listens there, or the address or the right is missing.
    pub async fn open(gateway: Ipv4Addr) -> Result<Self, DnsError> {
        let address = SocketAddr::from((gateway, PORT));
        let failed = |source| DnsError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { gateway, udp, tcp })
    }
}

/// Serves names until `shutdown` is done.
pub async fn serve(sockets: DnsSockets, options: DnsOptions, shutdown: impl Future<Output = ()>) {
    let forwarder = Arc::new(Forwarder {
        resolvers: Resolvers::new(options.servers.clone(), sockets.gateway),
        queries: Bound::new(options.queries_each, options.queries),
        connections: Bound::new(options.connections_each, options.connections),
        clients: options.clients,
    });
    let udp = Arc::new(sockets.udp);
    tokio::select! {
        () = shutdown => {}
        () = forwarder.clone().datagrams(udp) => {}
        () = forwarder.connections(sockets.tcp) => {}
    }
}

#[derive(Debug)]
struct Forwarder {
    resolvers: Resolvers,
    queries: Bound,
    connections: Bound,
    clients: Subnet,
}

impl Forwarder {
    async fn datagrams(self: Arc<Self>, udp: Arc<UdpSocket>) {
        let mut buffer = [0; LONGEST_QUERY];
        loop {
            // An error belongs to one earlier answer that could not be delivered, not to the socket.
            let Ok((length, from)) = udp.recv_from(&mut buffer).await else { continue };
            if !self.is_client(from.ip()) {
                continue;
            }
            match self.admit(&buffer[..length], from.ip()) {
                Err(None) => {}
                // Whoever asks too fast to take the answer can do without it.
                Err(Some(no)) => drop(udp.try_send_to(&no, from)),
                Ok((query, turn)) => {
                    let (forwarder, udp) = (self.clone(), udp.clone());
                    tokio::spawn(async move {
                        let servers = forwarder.resolvers.current();
                        let answer = in_time(&query, upstream::by_udp(&query, &servers)).await;
                        drop(turn);
                        drop(udp.try_send_to(&answer, from));
                    });
                }
            }
        }
    }

    async fn connections(self: Arc<Self>, tcp: TcpListener) {
        loop {
            let Ok((stream, from)) = tcp.accept().await else {
                // Out of descriptors, most likely: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let turn = self.is_client(from.ip()).then(|| self.connections.turn(from.ip())).flatten();
            // Without a turn it is closed.
            if let Some(turn) = turn {
                let forwarder = self.clone();
                tokio::spawn(async move {
                    // However it ended, it is over.
                    drop(forwarder.connection(stream, from.ip()).await);
                    drop(turn);
                });
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        for _ in 0..QUESTIONS {
            let bytes = timeout(IDLE, upstream::read(&mut stream)).await??;
            let answer = match self.admit(&bytes, from) {
                Err(None) => return Ok(()),
                Err(Some(no)) => no,
                Ok((query, _turn)) => {
                    let servers = self.resolvers.current();
                    in_time(&query, upstream::by_tcp(&query, &servers)).await
                }
            };
            timeout(IDLE, upstream::write(&mut stream, &answer)).await??;
        }
        Ok(())
    }

    /// A query and a turn for it; or the answer that says no; or nothing.
    fn admit(&self, bytes: &[u8], from: IpAddr) -> Result<(Query, Turn), Option<Vec<u8>>> {
        let query = Query::read(bytes)?;
        match self.queries.turn(from) {
            Some(turn) => Ok((query, turn)),
            None => Err(Some(query.refused(No::Failed))),
        }
    }

    /// Others may reach the gateway too: other machines that route to it, and this one's own programs.
    fn is_client(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let rest = u32::MAX.checked_shr(self.clients.prefix().into()).unwrap_or(0);
        (address.to_bits() ^ self.clients.address().to_bits()) & !rest == 0
    }
}

async fn in_time(query: &Query, answer: impl Future<Output = Option<Vec<u8>>>) -> Vec<u8> {
    timeout(PATIENCE, answer).await.ok().flatten().unwrap_or_else(|| query.refused(No::Failed))
}
