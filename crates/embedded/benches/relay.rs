//! What the relay costs: `cargo bench -p stockade-embedded --bench relay`.
//!
//! Each figure stands beside the same thing without a relay, from inside the sandbox's network namespace.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may panic")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

#[path = "../tests/support/world.rs"]
mod world;

use world::{AGENT_PORT, World, inside, resident};

const REQUEST: &[u8] = b"GET /v1/sandbox HTTP/1.1\r\nhost: sandbox\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
const ROUNDS: usize = 5_000;
const GIGABYTE: usize = 1_000_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        latency().await;
        throughput().await;
        memory().await;
    });
}

/// An agent on a thread of its own, and how it is reached through the relay.
async fn sandbox(world: &World, name: &str, serve: fn(TcpStream)) -> (SocketAddr, OwnedFd) {
    let (id, address) = world.listen(name).await;
    let namespace = world.namespace().await;
    let listener = inside(&namespace, || TcpListener::bind(("127.0.0.1", AGENT_PORT)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || serve(stream)).unwrap();
        }
    });
    world.relay.attach(&id, namespace.try_clone().unwrap(), AGENT_PORT).await.unwrap();
    (address, namespace)
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer) {
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn request(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    let mut back = [0; ANSWER.len()];
    stream.read_exact(&mut back).unwrap();
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn percentiles(mut act: impl FnMut()) -> String {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            act();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    format!("median {:>7.1?}  p99 {:>7.1?}", times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

async fn latency() {
    let world = World::new().await;
    let (through, namespace) = sandbox(&world, "latency", answer).await;
    let direct = SocketAddr::from(([127, 0, 0, 1], AGENT_PORT));
    let kept = |address| {
        let mut stream = open(address);
        percentiles(|| request(&mut stream))
    };
    let anew = |address| percentiles(|| request(&mut open(address)));
    println!("request, connection kept    direct   {}", inside(&namespace, || kept(direct)));
    println!("request, connection kept    relayed  {}", kept(through));
    println!("request, connection anew    direct   {}", inside(&namespace, || anew(direct)));
    println!("request, connection anew    relayed  {}", anew(through));
}

fn pour(mut stream: TcpStream) {
    let block = vec![1; 256 * 1024];
    let mut left = GIGABYTE;
    while left > 0 {
        let part = left.min(block.len());
        if stream.write_all(&block[..part]).is_err() {
            return;
        }
        left -= part;
    }
}

async fn throughput() {
    let world = World::new().await;
    // Asks first: a caller that says nothing is not passed on.
    let (through, namespace) = sandbox(&world, "flood", |mut stream| {
        let _ = stream.read(&mut [0; 1]);
        pour(stream);
    })
    .await;
    let ask = |address| {
        let mut stream = open(address);
        stream.write_all(b"x").unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let start = Instant::now();
        let mut received = 0;
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            received += bytes;
        }
        assert_eq!(received, GIGABYTE);
        format!("{:.0} MB/s", GIGABYTE as f64 / 1e6 / start.elapsed().as_secs_f64())
    };
    let direct = SocketAddr::from(([127, 0, 0, 1], AGENT_PORT));
    println!("one gigabyte                direct   {}", inside(&namespace, || ask(direct)));
    let before = resident(world.relay.pid());
    println!("one gigabyte                relayed  {}", ask(through));
    println!("memory during it grew by    {} KiB", resident(world.relay.pid()).saturating_sub(before));
}

async fn memory() {
    let world = World::new().await;
    println!("memory, no sandbox          {} KiB", resident(world.relay.pid()));
    let mut addresses = Vec::new();
    for number in 0..500 {
        addresses.push(sandbox(&world, &format!("idle-{number}"), answer).await.0);
    }
    println!("memory, 500 sandboxes       {} KiB", resident(world.relay.pid()));
    let mut connections = Vec::new();
    for address in addresses.iter().chain(&addresses) {
        let mut stream = open(*address);
        request(&mut stream);
        connections.push(stream);
    }
    println!("  and 1,000 connections     {} KiB", resident(world.relay.pid()));
}
