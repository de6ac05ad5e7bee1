//! One at a time: a range of addresses is free until somebody takes it, and servers of several state directories may
//! look for one at the same instant.
//!
//! The turn is an abstract socket: its name belongs to the network namespace, as the routes do that are looked at, and it
//! is free again when its holder ends, however that is.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// The name of the turn in the kernel.
const NAME: &[u8] = b"stockade-addresses";
/// How long others may take. They take milliseconds; whoever takes longer means no good, and is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Those who wait, in the kernel's queue.
const WAITING: i32 = 64;
/// The wait where that queue is full.
const BREATH: Duration = Duration::from_millis(20);

/// The turn to take a range, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// `None` when it was not to be had.
    _socket: Option<OwnedFd>,
}

/// Waits for the turn. Where it is not to be had, one goes on without: then two who begin at one instant may take the
/// same range.
pub(super) fn take() -> Turn {
    let socket = take_within(NAME, PATIENCE);
    if let Err(error) = &socket {
        tracing::warn!(%error, "another program holds the turn to take a range of addresses; going on without it");
    }
    Turn { _socket: socket.ok() }
}

fn take_within(name: &[u8], patience: Duration) -> Result<OwnedFd, Errno> {
    let end = Instant::now() + patience;
    let address = SocketAddrUnix::new_abstract_name(name)?;
    loop {
        let socket = mk_socket()?;
        match bind(&socket, &address).and_then(|()| listen(&socket, WAITING)) {
            Ok(()) => return Ok(socket),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ADDRINUSE);
        }
        wait_for_end(&address, left)?;
    }
}

fn mk_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Waits until whoever has the turn gives it back: then the kernel breaks our connection to it.
fn wait_for_end(address: &SocketAddrUnix, left: Duration) -> Result<(), Errno> {
    let socket = mk_socket()?;
    match connect(&socket, address) {
        Ok(()) => wait(&mut [PollFd::new(&socket, PollFlags::IN)], left),
        // The queue is full, which nobody tells the end of.
        Err(Errno::AGAIN) => wait(&mut [], BREATH.min(left)),
        // It was given back just now, or is not listened on yet.
        Err(Errno::CONNREFUSED) => {
            std::thread::yield_now();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn wait(descriptors: &mut [PollFd<'_>], left: Duration) -> Result<(), Errno> {
    let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
    match poll(descriptors, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn mk_name(test: &str) -> Vec<u8> {
        format!("stockade-test-{}-{test}", std::process::id()).into_bytes()
    }

    #[test]
    fn only_one_has_it() {
        let name = mk_name("one");
        let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let turn = take_within(&name, Duration::from_secs(60)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(turn);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 320);
    }

    #[test]
    fn one_who_keeps_it_is_waited_for_so_long_and_no_longer() {
        let name = mk_name("kept");
        let kept = take_within(&name, Duration::ZERO).unwrap();
        let began = Instant::now();
        assert_eq!(take_within(&name, Duration::from_millis(200)).unwrap_err(), Errno::ADDRINUSE);
        assert!(began.elapsed() >= Duration::from_millis(200));
        drop(kept);
        take_within(&name, Duration::from_secs(60)).unwrap();
    }
}
