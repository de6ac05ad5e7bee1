//! The relay between callers and sandboxes that mean no good, and when it runs out of everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use stockade_core::id::SandboxId;
use stockade_embedded::relay::RelayError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[path = "support/world.rs"]
mod world;

use world::{AGENT_PORT, SOON, World, agent, connect, echo, inside, resident, rest, says};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn sandboxes_that_flood_callers_who_do_not_read_cost_neither_memory_nor_others_time() {
    let world = World::new().await;
    let (_, calm) = world.echoing("calm").await;
    let (id, address) = world.listen("flood").await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { while stream.write_all(&[0; 65_536]).await.is_ok() {} });
        }
    });
    let before = resident(world.relay.pid());
    let mut stuck = Vec::new();
    for _ in 0..100 {
        let mut caller = connect(address).await;
        caller.write_all(REQUEST).await.unwrap();
        caller.readable().await.unwrap();
        stuck.push(caller);
    }
    let mut caller = connect(calm).await;
    for _ in 0..100 {
        assert_eq!(says(&mut caller, b"hello").await, b"hello");
    }
    let grown = resident(world.relay.pid()).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB for 100 connections that stand still");
}

#[tokio::test]
async fn callers_that_send_what_the_sandbox_does_not_read_are_held_back() {
    let world = World::new().await;
    let (id, address) = world.listen("deaf").await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(REQUEST).await.unwrap();
    let (mut upstream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let before = resident(world.relay.pid());
    let block = vec![1_u8; 1024 * 1024];
    let mut sent = REQUEST.len();
    // What the kernel's buffers of two connections hold, and not a byte more.
    while let Ok(written) = timeout(Duration::from_millis(300), caller.write(&block)).await {
        sent += written.unwrap();
        assert!(sent < 100 * 1024 * 1024, "{sent} bytes went to nobody");
    }
    let grown = resident(world.relay.pid()).saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB");
    // Nothing of it is lost.
    caller.shutdown().await.unwrap();
    let mut received = 0;
    let mut buffer = vec![0; 1024 * 1024];
    while let Ok(bytes @ 1..) = timeout(SOON, upstream.read(&mut buffer)).await.unwrap() {
        received += bytes;
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_sandbox_that_resets_connections_is_seen_to_reset_them() {
    let world = World::new().await;
    let (id, address) = world.listen("rude").await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(REQUEST).await.unwrap();
    let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let mut some = [0; 17];
    timeout(SOON, caller.read_exact(&mut some)).await.unwrap().unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(rest(&mut caller).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_sandbox_that_does_not_accept_is_given_up() {
    let world = World::with(|options| options.wait = Duration::from_millis(200)).await;
    let (id, address) = world.listen("closed").await;
    let namespace = world.namespace().await;
    // A queue of one, which is full then.
    let full = inside(&namespace, || {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], AGENT_PORT));
        rustix::net::bind(&socket, &here).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        (std::net::TcpStream::connect(here).unwrap(), socket)
    });
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(REQUEST).await.unwrap();
    let answer = String::from_utf8(rest(&mut caller).await.unwrap()).unwrap();
    assert!(answer.contains("does not accept connections"), "{answer}");
    drop(full);
}

#[tokio::test]
async fn one_sandbox_has_so_many_connections_and_no_more() {
    let world = World::new().await;
    let (id, address) = world.echoing("popular").await;
    let mut callers = Vec::new();
    for _ in 0..512 {
        let mut caller = connect(address).await;
        assert_eq!(says(&mut caller, b"x").await, b"x");
        callers.push(caller);
    }
    let mut one_more = connect(address).await;
    one_more.write_all(REQUEST).await.unwrap();
    let answer = String::from_utf8(rest(&mut one_more).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
    let listed = world.listed(&id).await;
    assert_eq!((listed.open, listed.refused), (512, 1));
    let (_, other) = world.echoing("other").await;
    assert_eq!(says(&mut connect(other).await, b"y").await, b"y");
}

/// A relay that may open few files.
async fn poor(files: usize) -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("poor");
    let real = world::roles();
    let text = format!("#!/bin/bash\nulimit -n {files}\nexec -a stockade-relay {} \"$@\"\n", real.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (World::with(|options| options.executable = PathBuf::from(&script)).await, directory)
}

#[tokio::test]
async fn a_relay_short_of_descriptors_refuses_and_recovers() {
    let (world, _script) = poor(256).await;
    let (_, address) = world.echoing("narrow").await;
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let mut caller = connect(address).await;
        caller.write_all(b"x").await.unwrap();
        let mut first = [0];
        timeout(SOON, caller.read_exact(&mut first)).await.unwrap().unwrap();
        match first {
            [b'x'] => served.push(caller),
            _ => refused += 1,
        }
    }
    assert!(served.len() > 10 && refused > 10, "{} served, {refused} refused", served.len());
    let id = SandboxId::new("one-too-many").unwrap();
    let full = world.relay.listen(&id, world::free_address()).await.unwrap_err();
    assert!(matches!(&full, RelayError::Full(text) if text.contains("256")), "{full}");
    drop(served);
    // The relay sees their ends when it comes to it.
    let recovered = async {
        loop {
            let mut caller = connect(address).await;
            caller.write_all(b"x").await.unwrap();
            let mut first = [0];
            caller.read_exact(&mut first).await.unwrap();
            if first == [b'x'] {
                return;
            }
        }
    };
    timeout(SOON, recovered).await.unwrap();
}

#[tokio::test]
async fn five_hundred_sandboxes_have_their_connections() {
    let world = World::new().await;
    let mut all = Vec::new();
    for number in 0..500 {
        all.push(world.echoing(&format!("many-{number}")).await);
    }
    let mut open = Vec::new();
    for (id, address) in &all {
        for _ in 0..4 {
            let mut caller = connect(*address).await;
            let text = id.as_str().as_bytes();
            assert_eq!(says(&mut caller, text).await, text);
            open.push(caller);
        }
    }
    let listed = world.relay.list().await.unwrap();
    assert_eq!(listed.len(), 500);
    assert!(listed.iter().all(|one| one.open == 4 && one.connections == 4));
    for (id, _) in &all {
        world.relay.remove(id).await.unwrap();
    }
    assert!(world.relay.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_relay_keeps_one_right_and_its_own_session() {
    let world = World::new().await;
    let pid = world.relay.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // CAP_SYS_ADMIN, to enter network namespaces.
    let only = format!("{:016x}", 1_u64 << 21);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(field(set), only, "{set}");
    }
    assert_eq!(field("CapInh:"), format!("{:016x}", 0));
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // Field 6 of proc_pid_stat(5). Ours is 0 when its leader is outside of our process namespace.
    let session = |process: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(3).unwrap().parse::<i32>().unwrap()
    };
    let relays = session(&pid.to_string());
    assert_ne!(relays, session("self"));
    assert_ne!(relays, pid);
    let environment = std::fs::read(format!("/proc/{pid}/environ"));
    assert!(environment.is_err() || environment.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_message_ends_the_conversation_and_not_the_relay() {
    let world = World::new().await;
    let (_, address) = world.echoing("untouched").await;
    for bytes in [b"{".to_vec(), vec![0xff; 1000], vec![b'['; 60_000], b"{\"number\":1}".to_vec()] {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let path = world.options.directory.join("relay.sock");
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::send(&socket, &bytes, SendFlags::empty()).unwrap();
        let mut back = [0; 4096];
        let (answered, _) = rustix::net::recv(&socket, &mut back, rustix::net::RecvFlags::empty()).unwrap();
        // A question that is not known is answered; what is no question ends it.
        assert_eq!(answered > 0, bytes.starts_with(b"{\"number\""));
    }
    assert_eq!(says(&mut connect(address).await, b"x").await, b"x");
}

#[tokio::test]
async fn a_directory_that_others_may_enter_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = stockade_embedded::relay::find(directory.path()).unwrap_err().to_string();
    assert!(found.contains("chmod 700"), "{found}");
}

#[tokio::test]
async fn a_relay_that_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("broken");
    let mut file = std::fs::File::create(&script).unwrap();
    file.write_all(b"#!/bin/bash\necho no luck today\n").unwrap();
    drop(file);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut options = stockade_embedded::relay::RelayOptions::new(directory.path());
    options.executable = script;
    let error = stockade_embedded::relay::Relay::connect_or_start(options).await.unwrap_err();
    assert!(matches!(&error, RelayError::Start(why) if why == "no luck today"), "{error}");
}

#[tokio::test]
async fn a_caller_that_only_connects_reaches_nobody() {
    let world = World::new().await;
    let (id, address) = world.listen("quiet").await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    drop(connect(address).await);
    let silent: TcpStream = connect(address).await;
    let (_, other) = world.echoing("other").await;
    assert_eq!(says(&mut connect(other).await, b"x").await, b"x");
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    drop(silent);
    tokio::spawn(echo(listener));
    assert_eq!(says(&mut connect(address).await, b"y").await, b"y");
}

#[tokio::test]
async fn connections_that_say_nothing_give_way_to_those_that_do() {
    let world = World::new().await;
    let (id, address) = world.echoing("besieged").await;
    let mut speaks = connect(address).await;
    assert_eq!(says(&mut speaks, b"x").await, b"x");
    let mut silent = Vec::new();
    for _ in 0..540 {
        silent.push(connect(address).await);
    }
    let mut served = Vec::new();
    for _ in 0..20 {
        let mut caller = connect(address).await;
        assert_eq!(says(&mut caller, b"x").await, b"x");
        served.push(caller);
    }
    // The oldest are gone, the youngest are not, and who has said something is never closed for others.
    assert_eq!(rest(&mut silent[0]).await.unwrap(), b"");
    assert_eq!(says(silent.last_mut().unwrap(), b"late").await, b"late");
    assert_eq!(says(&mut speaks, b"still").await, b"still");
    assert_eq!(says(&mut served[0], b"still").await, b"still");
    let listed = world.listed(&id).await;
    assert_eq!((listed.open, listed.refused), (512, 0));
}
