//! What the relay says to callers whose request it cannot bring to an answer any more.

#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

use std::io::ErrorKind;

use stockade_core::id::SandboxId;
use stockade_embedded::relay::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[path = "support/world.rs"]
mod world;

use world::{AGENT_PORT, SOON, World, agent, connect, rest};

/// A sandbox whose agent has a request and does not answer, and the caller that waits.
async fn asked(world: &World, name: &str) -> (SandboxId, TcpStream, TcpStream) {
    let (id, address) = world.listen(name).await;
    let namespace = world.namespace().await;
    let listener = agent(&namespace);
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    let mut caller = connect(address).await;
    caller.write_all(REQUEST).await.unwrap();
    let (mut at_agent, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut request = vec![0; REQUEST.len()];
    timeout(SOON, at_agent.read_exact(&mut request)).await.unwrap().unwrap();
    (id, caller, at_agent)
}

const REQUEST: &[u8] = b"POST /v1/bash/exec HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";

fn mk_failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), message: format!("it is {reason} for a test") }
}

async fn told(caller: &mut TcpStream) -> String {
    String::from_utf8(rest(caller).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_caller_that_waits_is_told_what_became_of_its_sandbox() {
    let world = World::new().await;
    let (id, mut caller, _agent) = asked(&world, "stopped").await;
    world.relay.detach(&id, Some(mk_failure("Evicted"))).await.unwrap();
    let answer = told(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 424 ") && answer.contains("it is Evicted for a test"), "{answer}");
    let (id, mut caller, _agent) = asked(&world, "failed").await;
    world.relay.fail(&id, mk_failure("CrashLoopBackOff")).await.unwrap();
    let answer = told(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("CrashLoopBackOff"), "{answer}");
    let (id, mut caller, _agent) = asked(&world, "deleted").await;
    world.relay.remove(&id).await.unwrap();
    let answer = told(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 410 ") && answer.contains("was deleted"), "{answer}");
    // Its processes end before the server has seen why.
    let (id, mut caller, agent) = asked(&world, "killed").await;
    drop(agent);
    world.relay.detach(&id, Some(mk_failure("OOMKilled"))).await.unwrap();
    let answer = told(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 424 ") && answer.contains("OOMKilled"), "{answer}");
}

#[tokio::test]
async fn where_an_answer_has_begun_or_another_protocol_is_spoken_nothing_is_added() {
    let world = World::new().await;
    for (name, said) in [
        ("streams", &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"[..]),
        ("upgraded", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ] {
        let (id, mut caller, mut at_agent) = asked(&world, name).await;
        at_agent.write_all(said).await.unwrap();
        let mut seen = vec![0; said.len()];
        timeout(SOON, caller.read_exact(&mut seen)).await.unwrap().unwrap();
        if name == "upgraded" {
            // A frame of the caller is no request.
            caller.write_all(b"\x81\x80abcd").await.unwrap();
            timeout(SOON, at_agent.read_exact(&mut [0; 6])).await.unwrap().unwrap();
        }
        world.relay.detach(&id, Some(mk_failure("Evicted"))).await.unwrap();
        assert_eq!(rest(&mut caller).await.unwrap_err().kind(), ErrorKind::ConnectionReset, "{name}");
    }
}
