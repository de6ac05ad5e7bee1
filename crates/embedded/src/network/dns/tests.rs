//! A forwarder on a real gateway, asked from real sandboxes.

use std::net::UdpSocket as BlockingUdp;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::message::tests::mk_query;
use super::*;
use crate::network::namespace::inside;
use crate::network::tests::mk_options;
use crate::network::tests::world::{PATIENCE as LONG, on_a_machine};
use crate::network::{Network, ResolvedPolicy};

const NO_ERROR: u8 = 0;
const FAILED: u8 = 2;

/// What the machine's name server does.
#[derive(Clone, Copy)]
enum Manner {
    Answers,
    /// It takes queries, and says nothing.
    Silent,
    /// It first sends answers with another number and to another question.
    AfterForgeries,
}

/// The name server of the machine: it answers with the query and four bytes.
async fn mk_server(address: Ipv4Addr, manner: Manner) -> Arc<(AtomicUsize, Notify)> {
    let udp = UdpSocket::bind((address, PORT)).await.unwrap();
    let tcp = TcpListener::bind((address, PORT)).await.unwrap();
    let seen = Arc::new((AtomicUsize::new(0), Notify::new()));
    let counter = seen.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            counter.0.fetch_add(1, Ordering::SeqCst);
            counter.1.notify_waiters();
            let answer = mk_answer(&buffer[..length]);
            match manner {
                Manner::Silent => continue,
                Manner::Answers => {}
                Manner::AfterForgeries => {
                    let mut forged = answer.clone();
                    forged[0] ^= 1;
                    udp.send_to(&forged, from).await.unwrap();
                    let mut forged = answer.clone();
                    forged[13] ^= 1;
                    udp.send_to(&forged, from).await.unwrap();
                }
            }
            udp.send_to(&answer, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let query = upstream::read(&mut stream).await.unwrap();
            upstream::write(&mut stream, &mk_answer(&query)).await.unwrap();
        }
    });
    seen
}

fn mk_answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer.extend(b"true");
    answer
}

struct Served {
    network: Network,
    gateway: Ipv4Addr,
    _directory: tempfile::TempDir,
    options: DnsOptions,
}

/// A machine whose name server is at 127.0.0.53, with a forwarder.
async fn mk_served(change: impl FnOnce(&mut DnsOptions)) -> Served {
    let network = Network::start(mk_options("test")).await.unwrap();
    let Some(IpAddr::V4(gateway)) = network.name_server() else { panic!("{:?}", network.closed()) };
    let directory = tempfile::tempdir().unwrap();
    let mut options = DnsOptions::new(network.subnet().unwrap().0);
    options.servers = directory.path().join("resolv.conf");
    std::fs::write(&options.servers, "nameserver 127.0.0.53\n").unwrap();
    change(&mut options);
    let sockets = DnsSockets::open(gateway).await.unwrap();
    tokio::spawn(serve(sockets, options.clone(), std::future::pending()));
    Served { network, gateway, _directory: directory, options }
}

impl Served {
    /// A socket inside a new sandbox that is connected to its name server.
    async fn asker(&self, slot: u32) -> (UdpSocket, crate::network::Prepared) {
        let prepared = self.network.prepare(slot, &ResolvedPolicy::Open(vec![])).await.unwrap();
        assert_eq!(prepared.name_server, Some(self.gateway.into()));
        let socket = inside(&prepared.netns, || BlockingUdp::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.connect((self.gateway, PORT)).unwrap();
        socket.set_nonblocking(true).unwrap();
        (UdpSocket::from_std(socket).unwrap(), prepared)
    }
}

async fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let length = timeout(LONG + PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer[..length].to_vec()
}

#[test]
fn a_sandbox_gets_the_answers_of_the_machines_name_server() {
    on_a_machine(async |_world| {
        mk_server(Ipv4Addr::new(127, 0, 0, 53), Manner::Answers).await;
        let served = mk_served(|_| {}).await;
        let (socket, prepared) = served.asker(0).await;
        let query = mk_query(77, "pypi.example", 1);
        socket.send(&query).await.unwrap();
        assert_eq!(hear(&socket).await, mk_answer(&query));
        let gateway = served.gateway;
        let stream = inside(&prepared.netns, || std::net::TcpStream::connect((gateway, PORT)));
        // The forwarder accepts on this very thread, so the kernel's queue has to do for now.
        let stream = stream.unwrap().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        for _ in 0..2 {
            upstream::write(&mut stream, &query).await.unwrap();
            assert_eq!(timeout(LONG, upstream::read(&mut stream)).await.unwrap().unwrap(), mk_answer(&query));
        }
    });
}

#[test]
fn forged_answers_are_passed_over() {
    on_a_machine(async |_world| {
        mk_server(Ipv4Addr::new(127, 0, 0, 53), Manner::AfterForgeries).await;
        let served = mk_served(|_| {}).await;
        let (socket, _prepared) = served.asker(0).await;
        let query = mk_query(78, "pypi.example", 1);
        socket.send(&query).await.unwrap();
        assert_eq!(hear(&socket).await, mk_answer(&query));
    });
}

#[test]
fn too_many_questions_are_refused_and_harm_nobody_else() {
    on_a_machine(async |_world| {
        let silent = mk_server(Ipv4Addr::new(127, 0, 0, 53), Manner::Silent).await;
        let served = mk_served(|options| options.queries_each = 8).await;
        let (greedy, _one) = served.asker(0).await;
        for number in 0..9 {
            greedy.send(&mk_query(number, "flood.example", 1)).await.unwrap();
        }
        let refused = hear(&greedy).await;
        assert_eq!(refused[3] & 0x0f, FAILED);
        while silent.0.load(Ordering::SeqCst) < 8 {
            timeout(LONG, silent.1.notified()).await.unwrap();
        }
        let (modest, _other) = served.asker(1).await;
        let next = silent.1.notified();
        modest.send(&mk_query(1, "modest.example", 1)).await.unwrap();
        timeout(LONG, next).await.unwrap();
        assert_eq!(silent.0.load(Ordering::SeqCst), 9, "the ninth of the greedy one was not passed on");
    });
}

#[test]
fn a_silent_name_server_gives_way_to_the_next_and_then_to_a_failure() {
    on_a_machine(async |_world| {
        mk_server(Ipv4Addr::new(127, 0, 0, 53), Manner::Silent).await;
        mk_server(Ipv4Addr::new(127, 0, 0, 54), Manner::Answers).await;
        let served = mk_served(|options| {
            std::fs::write(&options.servers, "nameserver 127.0.0.53\nnameserver 127.0.0.54\n").unwrap();
        })
        .await;
        let (socket, _prepared) = served.asker(0).await;
        let query = mk_query(1, "a.example", 1);
        socket.send(&query).await.unwrap();
        assert_eq!(hear(&socket).await, mk_answer(&query));
        std::fs::write(&served.options.servers, "nameserver 127.0.0.53\n").unwrap();
        // The change is seen a second after the last look, which the answer above took twice.
        socket.send(&query).await.unwrap();
        let answer = hear(&socket).await;
        assert_eq!((answer[3] & 0x0f, &answer[..2]), (FAILED, &query[..2]));
    });
}

#[test]
fn only_sandboxes_are_answered() {
    on_a_machine(async |_world| {
        let server = mk_server(Ipv4Addr::new(127, 0, 0, 53), Manner::Answers).await;
        let served = mk_served(|_| {}).await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // From loopback to an address of this machine.
        stranger.connect((served.gateway, PORT)).await.unwrap();
        stranger.send(&mk_query(1, "a.example", 1)).await.unwrap();
        let (socket, _prepared) = served.asker(0).await;
        socket.send(&mk_query(2, "a.example", 1)).await.unwrap();
        assert_eq!(hear(&socket).await[3] & 0x0f, NO_ERROR);
        assert_eq!(server.0.load(Ordering::SeqCst), 1);
    });
}
