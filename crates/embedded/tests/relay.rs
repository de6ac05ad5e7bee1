//! The relay as server, callers and sandboxes see it: a real process, real network namespaces.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use stockade_core::id::SandboxId;
use stockade_embedded::relay::{Failure, Moment, Relay, RelayError, RelayEvent, RelayOptions, Thaw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[path = "support/world.rs"]
mod world;

use world::{AGENT_PORT, SOON, World, agent, connect, echo, inside, kill, rest, says};

#[tokio::test]
async fn a_request_waits_for_its_sandbox_and_says_so() {
    let mut world = World::new().await;
    let (id, address) = world.listen("early").await;
    let mut caller = connect(address).await;
    caller.write_all(b"hello").await.unwrap();
    assert_eq!(world.event().await, RelayEvent::Wanted(id.clone()));
    assert_eq!(world.listed(&id).await.waiting, 1);
    let namespace = world.namespace().await;
    // Attached before its agent listens: the relay tries again.
    world.relay.attach(&id, namespace.try_clone().unwrap(), AGENT_PORT).await.unwrap();
    tokio::spawn(echo(agent(&namespace)));
    let mut back = [0; 5];
    timeout(SOON, caller.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn bytes_go_both_ways_and_an_end_goes_with_them() {
    let world = World::new().await;
    let (id, address) = world.echoing("echo").await;
    let mut caller = connect(address).await;
    assert_eq!(says(&mut caller, b"one").await, b"one");
    let big = vec![7_u8; 3_000_000];
    let (mut read, mut write) = caller.split();
    let send = async {
        write.write_all(&big).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let receive = async { timeout(SOON, read.read_to_end(&mut back)).await.unwrap().unwrap() };
    tokio::join!(send, receive);
    assert!(back == big);
    let listed = world.listed(&id).await;
    assert_eq!((listed.bytes_in, listed.bytes_out), (3_000_003, 3_000_003));
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_answered_in_the_agents_form() {
    let world = World::with(|options| options.wait = Duration::from_millis(50)).await;
    let (_, address) = world.listen("never").await;
    let mut caller = connect(address).await;
    caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut caller).await.unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["success"], false);
    assert_eq!(body["message"], "the sandbox did not start in time");
}

/// Every caller of a sandbox that is not started again, those who wait already and those who come.
#[tokio::test]
async fn who_asks_a_failed_sandbox_is_told_at_once_why() {
    let mut world = World::new().await;
    let (id, address) = world.listen("failed").await;
    let mut early = connect(address).await;
    early.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(world.event().await, RelayEvent::Wanted(id.clone()));
    let failure = Failure { reason: "Evicted".into(), message: "its files are too large".into() };
    world.relay.fail(&id, failure.clone()).await.unwrap();
    // Told twice, or by the next server, it stays so.
    world.relay.fail(&id, failure).await.unwrap();
    let mut late = connect(address).await;
    late.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    for mut caller in [early, late] {
        // A request waits for 30 s, which is longer than this does.
        let answer = String::from_utf8(rest(&mut caller).await.unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && !head.contains("retry-after"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["reason"], "Evicted");
        assert_eq!(body["message"], "the sandbox has failed (Evicted): its files are too large");
    }
    assert_eq!(world.listed(&id).await.refused, 2);
}

#[tokio::test]
async fn a_port_of_the_machine_is_never_reached_in_place_of_the_sandboxs() {
    let world = World::with(|options| options.wait = Duration::from_millis(50)).await;
    let (id, address) = world.listen("alone").await;
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    let namespace = world.namespace().await;
    world.relay.attach(&id, namespace, port).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(rest(&mut caller).await.unwrap().starts_with(b"HTTP/1.1 503 "));
    assert_eq!(trap.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn only_the_network_of_a_sandbox_can_be_attached() {
    let world = World::new().await;
    let (id, _) = world.listen("odd").await;
    let machine: OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
    let refused = world.relay.attach(&id, machine, AGENT_PORT).await.unwrap_err();
    assert!(refused.to_string().contains("the machine's own"), "{refused}");
    let file: OwnedFd = std::fs::File::open("/proc/self/ns/mnt").unwrap().into();
    let refused = world.relay.attach(&id, file, AGENT_PORT).await.unwrap_err();
    assert!(refused.to_string().contains("no network namespace"), "{refused}");
    let unknown = SandboxId::new("unknown").unwrap();
    let namespace = world.namespace().await;
    let refused = world.relay.attach(&unknown, namespace, AGENT_PORT).await.unwrap_err();
    assert!(matches!(refused, RelayError::Unknown(id) if id == "unknown"));
}

#[tokio::test]
async fn a_paused_sandbox_is_woken_by_the_next_byte() {
    let mut world = World::new().await;
    let (id, address) = world.echoing("sleepy").await;
    let mut open = connect(address).await;
    assert_eq!(says(&mut open, b"before").await, b"before");
    for new_connection in [false, true] {
        let (mut woken, thaw) = std::io::pipe().unwrap();
        let thaw = Thaw { descriptor: thaw.into(), bytes: b"THAWED".to_vec() };
        world.relay.pause(&id, Moment::now(), thaw).await.unwrap();
        assert!(world.listed(&id).await.paused);
        let mut caller = if new_connection { connect(address).await } else { open };
        // The server is not there.
        assert_eq!(says(&mut caller, b"wake").await, b"wake");
        let mut written = String::new();
        std::io::Read::read_to_string(&mut woken, &mut written).unwrap();
        assert_eq!(written, "THAWED");
        assert_eq!(world.event().await, RelayEvent::Woken(id.clone()));
        assert!(!world.listed(&id).await.paused);
        open = caller;
    }
}

#[tokio::test]
async fn a_byte_that_came_while_the_sandbox_was_frozen_wakes_it_at_once() {
    let mut world = World::new().await;
    let (id, address) = world.echoing("hasty").await;
    let since = Moment::now();
    let mut caller = connect(address).await;
    assert_eq!(says(&mut caller, b"now").await, b"now");
    let (mut woken, thaw) = std::io::pipe().unwrap();
    let thaw = Thaw { descriptor: thaw.into(), bytes: b"1".to_vec() };
    world.relay.pause(&id, since, thaw).await.unwrap();
    assert_eq!(world.event().await, RelayEvent::Woken(id));
    let mut written = String::new();
    std::io::Read::read_to_string(&mut woken, &mut written).unwrap();
    assert_eq!(written, "1");
}

#[tokio::test]
async fn connections_outlive_the_server_and_the_next_one_finds_the_relay() {
    let mut world = World::new().await;
    let (id, address) = world.echoing("steady").await;
    let mut caller = connect(address).await;
    assert_eq!(says(&mut caller, b"one").await, b"one");
    let before = world.relay.pid();
    world.new_server().await;
    assert_eq!(world.relay.pid(), before);
    assert_eq!(says(&mut caller, b"two").await, b"two");
    // Told again, nothing changes.
    world.relay.listen(&id, address).await.unwrap();
    let listed = world.listed(&id).await;
    assert_eq!((listed.address, listed.open, listed.bytes_in), (address, 1, 6));
    assert!(listed.namespace.is_some());
}

#[tokio::test]
async fn a_new_server_hears_who_waits() {
    let mut world = World::new().await;
    let (id, address) = world.listen("patient").await;
    let mut caller = connect(address).await;
    caller.write_all(b"x").await.unwrap();
    assert_eq!(world.event().await, RelayEvent::Wanted(id.clone()));
    world.new_server().await;
    assert_eq!(world.event().await, RelayEvent::Wanted(id));
}

#[tokio::test]
async fn a_killed_relay_is_started_again_with_the_same_ports() {
    let mut world = World::new().await;
    let (id, address) = world.echoing("again").await;
    let mut caller = connect(address).await;
    assert_eq!(says(&mut caller, b"one").await, b"one");
    let first = world.relay.pid();
    kill(first);
    assert_eq!(world.event().await, RelayEvent::Ended);
    assert!(matches!(world.relay.list().await, Err(RelayError::Ended)));
    world.new_server().await;
    assert_ne!(world.relay.pid(), first);
    // Its connections are still ending; the port is free all the same.
    world.relay.listen(&id, address).await.unwrap();
    let namespace = world.namespace().await;
    tokio::spawn(echo(agent(&namespace)));
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    assert_eq!(says(&mut connect(address).await, b"two").await, b"two");
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_named() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let id = SandboxId::new("unlucky").unwrap();
    let refused = world.relay.listen(&id, address).await.unwrap_err().to_string();
    assert!(refused.contains(&address.to_string()) && refused.contains("unlucky"), "{refused}");
}

#[tokio::test]
async fn servers_that_race_to_start_the_relay_end_with_one() {
    let world = World::new().await;
    let first = world.relay.pid();
    world.relay.shutdown().await.unwrap();
    let racing = (0..16).map(|_| tokio::spawn(Relay::connect_or_start(world.options.clone())));
    let mut pids = Vec::new();
    let mut relays = Vec::new();
    for racer in racing.collect::<Vec<_>>() {
        // No more than the relay talks to at a time.
        if let Ok((relay, _)) = racer.await.unwrap() {
            pids.push(relay.pid());
            relays.push(relay);
        }
    }
    pids.dedup();
    assert_eq!(pids.len(), 1);
    assert_ne!(pids[0], first);
}

#[tokio::test]
async fn detaching_ends_connections_and_lets_new_ones_wait() {
    let mut world = World::new().await;
    let (id, address) = world.echoing("restarted").await;
    let mut old = connect(address).await;
    assert_eq!(says(&mut old, b"old").await, b"old");
    world.relay.detach(&id, None).await.unwrap();
    assert_eq!(rest(&mut old).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut new = connect(address).await;
    new.write_all(b"new").await.unwrap();
    assert_eq!(world.event().await, RelayEvent::Wanted(id.clone()));
    let namespace = world.namespace().await;
    tokio::spawn(echo(agent(&namespace)));
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    let mut back = [0; 3];
    timeout(SOON, new.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"new");
}

#[tokio::test]
async fn removing_closes_the_port_its_connections_and_its_namespace() {
    let world = World::new().await;
    let (id, address) = world.echoing("gone").await;
    let mut caller = connect(address).await;
    assert_eq!(says(&mut caller, b"x").await, b"x");
    world.relay.remove(&id).await.unwrap();
    world.relay.remove(&id).await.unwrap();
    assert_eq!(rest(&mut caller).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(world.relay.list().await.unwrap().is_empty());
    let held = std::fs::read_dir(format!("/proc/{}/fd", world.relay.pid())).map(|all| {
        all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|link| link.to_string_lossy().starts_with("net:["))
            .count()
    });
    // The one that is left is the connector's own. An ordinary user may not look.
    assert!(held.is_err() || held.unwrap() == 1);
}

#[tokio::test]
async fn connections_come_from_the_sandboxs_own_loopback() {
    let world = World::new().await;
    let (id, address) = world.listen("inside").await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace.try_clone().unwrap(), AGENT_PORT).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(b"x").await.unwrap();
    let (_stream, from) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert!(from.ip().is_loopback());
    let port = format!(":{:04X} ", from.port());
    let sockets = inside(&namespace, || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    assert!(sockets.contains(&port), "{sockets}");
}

#[tokio::test]
async fn names_are_served_on_while_servers_come_and_go() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user has no open networks.
        return;
    }
    let mut world = World::with(|options| options.low_ports = true).await;
    // All of 127.0.0.0/8 is there without being set up.
    let gateway = std::net::Ipv4Addr::new(127, 77, 0, 1);
    let clients: stockade_embedded::settings::Subnet = "127.0.0.0/8".parse().unwrap();
    world.relay.serve_names(gateway, clients).await.unwrap();
    world.new_server().await;
    world.relay.serve_names(gateway, clients).await.unwrap();
    // An A question for "example.".
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\x01\x00\x01";
    let asker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    asker.send_to(query, (gateway, 53)).await.unwrap();
    let mut answer = [0; 1500];
    let (length, from) = timeout(SOON, asker.recv_from(&mut answer)).await.unwrap().unwrap();
    assert_eq!(from.ip(), gateway);
    // Whatever it says of the name: it is the answer to this question.
    assert!(length >= 12 && answer[..2] == query[..2] && answer[2] & 0x80 != 0);
    let elsewhere = world.relay.serve_names(std::net::Ipv4Addr::new(192, 0, 2, 1), clients).await;
    assert!(elsewhere.unwrap_err().to_string().contains("192.0.2.1:53"));
}

#[tokio::test]
async fn names_need_the_right_to_listen_for_them() {
    let world = World::new().await;
    let clients: stockade_embedded::settings::Subnet = "127.0.0.0/8".parse().unwrap();
    let refused = world.relay.serve_names(std::net::Ipv4Addr::new(127, 77, 0, 2), clients).await;
    assert!(refused.unwrap_err().to_string().contains("127.77.0.2:53"));
}

#[tokio::test]
async fn a_relay_that_nobody_needs_ends_and_one_with_a_port_stays() {
    let world = World::new().await;
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let directory = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
    let options = RelayOptions { directory: directory.path().to_owned(), ..world.options.clone() };
    let connect = || Relay::connect_or_start(options.clone());
    let (relay, events) = connect().await.unwrap();
    let first = relay.pid();
    let id = SandboxId::new("kept").unwrap();
    relay.listen(&id, world::free_address()).await.unwrap();
    drop((relay, events));
    let (relay, events) = connect().await.unwrap();
    assert_eq!(relay.pid(), first, "it has a port");
    relay.remove(&id).await.unwrap();
    drop((relay, events));
    // Held as long as it lives.
    let life = std::fs::OpenOptions::new().write(true).open(directory.path().join("relay.lock")).unwrap();
    timeout(SOON, tokio::task::spawn_blocking(move || life.lock())).await.unwrap().unwrap().unwrap();
    let (relay, _events) = connect().await.unwrap();
    assert_ne!(relay.pid(), first);
    relay.shutdown().await.unwrap();
}
