//! Bytes from one connection to another.
//!
//! What the other side does not take stays in the kernel's buffer of the side it comes from: bytes are looked
//! at, sent, and only then taken out, as many as were sent. The relay holds none, however many connections
//! stand still, and whoever sends feels whoever does not read.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{SendFlags, Shutdown, send, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most that is passed on at once.
const CHUNK: usize = 128 * 1024;
/// Chunks in a row before other connections have their turn.
const TURN: usize = 8;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// What became of one chunk.
enum Passed {
    /// It went, whole or in part.
    Bytes(usize),
    /// There is none yet.
    Empty,
    /// The other side takes none now.
    Full,
    /// There will be none any more.
    End,
}

/// Passes on all that comes until its end; [`end`] passes that on. `before` is called with bytes before they are sent,
/// `after` with how many were.
pub(super) async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    before: impl Fn(&[u8]),
    after: impl Fn(usize),
) -> io::Result<()> {
    let mut in_a_row = 0;
    loop {
        match pass(from, to, &before)? {
            Passed::Bytes(bytes) => {
                after(bytes);
                in_a_row += 1;
                if in_a_row == TURN {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
            }
            Passed::Empty => {
                in_a_row = 0;
                from.readable().await?;
            }
            Passed::Full => {
                in_a_row = 0;
                to.writable().await?;
            }
            Passed::End => return Ok(()),
        }
    }
}

/// Says that nothing more will come.
pub(super) fn end(to: &TcpStream) -> io::Result<()> {
    match shutdown(to, Shutdown::Write) {
        // It ended as well.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn pass(from: &TcpStream, to: &TcpStream, before: &impl Fn(&[u8])) -> io::Result<Passed> {
    BUFFER.with_borrow_mut(|buffer| {
        let seen = match from.try_io(Interest::READABLE, || receive(from, buffer, libc::MSG_PEEK)) {
            Ok(0) => return Ok(Passed::End),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Passed::Empty),
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..seen];
        before(bytes);
        let sent = match to.try_io(Interest::WRITABLE, || Ok(send(to, bytes, SendFlags::NOSIGNAL)?)) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Passed::Full),
            Err(error) => return Err(error),
        };
        // Taken out without being copied again (tcp(7), MSG_TRUNC).
        receive(from, &mut buffer[..sent], libc::MSG_TRUNC)?;
        Ok(Passed::Bytes(sent))
    })
}

/// recv(2). With MSG_TRUNC nothing is written to the buffer.
#[allow(unsafe_code)]
fn receive(from: &TcpStream, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are of one live buffer that nobody else looks at meanwhile.
    let received =
        unsafe { libc::recv(from.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
