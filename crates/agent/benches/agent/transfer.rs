//! One gigabyte in and out, and what the agent holds of it. The floor is a copy between a socket and a file.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use crate::common::Agent;
use crate::rows::{Row, Rows};
use crate::start::memory;

const GIGABYTE: u64 = 1_000_000_000;
const CHUNK: usize = 1_000_000;
const TURNS: usize = 3;
/// What the floor copies at once: as the agent does.
const COPY: usize = 256 * 1024;

pub(crate) fn measure(agent: &Agent, rows: &mut Rows) {
    let path = agent.home.path().join("big");
    agent.forget_peak();
    let (mut up, mut bare_up, mut down, mut bare_down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        up.push(upload(agent, &path));
        down.push(download(agent, &path));
        bare_down.push(send_floor(&path));
        std::fs::remove_file(&path).unwrap();
        bare_up.push(receive_floor(&path));
        std::fs::remove_file(&path).unwrap();
    }
    for (what, ours, floor) in [("upload of 1 GB", up, bare_up), ("download of 1 GB", down, bare_down)] {
        let row =
            Row { what: what.to_owned(), unit: "MB/s", count: TURNS, ours: median(ours), ..Row::default() };
        rows.add(&row.floor(median(floor)).budget(500.0));
    }
    rows.add(&memory("most resident during these", agent.peak()));
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[allow(clippy::cast_precision_loss, reason = "the size is exact")]
fn rate(began: Instant) -> f64 {
    GIGABYTE as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn send(stream: &mut impl Write) {
    let chunk = vec![b'x'; CHUNK];
    for _ in 0..GIGABYTE / CHUNK as u64 {
        stream.write_all(&chunk).unwrap();
    }
}

fn upload(agent: &Agent, path: &Path) -> f64 {
    let mut client = agent.client();
    let boundary = "----bench";
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"path\"\r\n\r\n{}\r\n--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"big\"\r\n\r\n",
        path.display()
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + GIGABYTE + tail.len() as u64;
    let began = Instant::now();
    client.raw(
        format!("POST /v1/file/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary={boundary}\r\ncontent-length: {length}\r\n\r\n{head}")
            .as_bytes(),
    );
    send(client.writer());
    client.raw(tail.as_bytes());
    assert_eq!(client.answer().data()["file_size"], GIGABYTE);
    rate(began)
}

fn download(agent: &Agent, path: &Path) -> f64 {
    let mut client = agent.client();
    let began = Instant::now();
    let request =
        format!("GET /v1/file/download?path={} HTTP/1.1\r\nhost: localhost\r\n\r\n", path.display());
    client.raw(request.as_bytes());
    assert_eq!(client.head(), (200, GIGABYTE));
    client.skip(GIGABYTE);
    rate(began)
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn receive_floor(path: &Path) -> f64 {
    let (mut client, mut server) = connected();
    let began = Instant::now();
    let sender = std::thread::spawn(move || send(&mut client));
    let mut file = File::create(path).unwrap();
    copy(&mut server, &mut file);
    sender.join().unwrap();
    rate(began)
}

fn send_floor(path: &Path) -> f64 {
    let (mut client, mut server) = connected();
    let mut file = File::open(path).unwrap();
    let began = Instant::now();
    let sender = std::thread::spawn(move || copy(&mut file, &mut server));
    copy(&mut client, &mut std::io::sink());
    sender.join().unwrap();
    rate(began)
}

/// By reads and writes: the standard library's copy would have the kernel do it.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; COPY];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return,
            length => to.write_all(&buffer[..length]).unwrap(),
        }
    }
}
