//! Hearing from an agent in a network of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Waits until the agent says that it listens.
pub(super) fn wait_ready(ready: &OwnedFd, limit: Duration) -> Result<(), String> {
    read_within(ready, limit, &mut [0])
        .and_then(|read| if read == 1 { Ok(()) } else { Err("the agent ended".to_owned()) })
}

/// What comes within a time.
pub(super) fn read_within(from: &OwnedFd, limit: Duration, bytes: &mut [u8]) -> Result<usize, String> {
    let limit = Timespec::try_from(limit).map_err(|_| "a time to wait".to_owned())?;
    let said = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&limit)));
    match said {
        Ok(0) => Err("it does not say that it is there".to_owned()),
        Ok(_) => rustix::io::read(from, bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks the agent in the network of this process, from a thread that steps in there and ends.
pub(super) fn first_answer(pid: u32, port: u16, limit: Duration) -> Result<(), String> {
    let ask = move || -> std::io::Result<String> {
        let network = File::open(format!("/proc/{pid}/ns/net"))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        write!(stream, "GET /v1/sandbox HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(65_536).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = std::thread::spawn(ask).join().map_err(|_| "the asking thread ended".to_owned())?;
    let answer = answer.map_err(|error| format!("no answer: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(()) } else { Err(format!("the answer is {status:?}")) }
}
