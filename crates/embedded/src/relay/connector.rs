//! Sockets inside sandboxes.
//!
//! A socket belongs for ever to the network namespace that its thread stood in when it was made. The relay's
//! main thread stands in an empty namespace of its own. To connect, it steps into a sandbox's namespace, makes a
//! socket and steps back, in one go. A socket made by mistake would reach nothing; those of the machine are made
//! by another thread, which never leaves it ([`super::machine`]).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::port::Target;
use super::process::log;

/// Makes connections to agents.
#[derive(Debug)]
pub(super) struct Connector {
    /// The empty namespace.
    home: OwnedFd,
}

impl Connector {
    /// Moves the calling thread to an empty namespace. Threads that it starts later are there too.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { home: empty_namespace()? })
    }

    /// A connection to the agent inside the sandbox's network namespace.
    pub(super) async fn connect(&self, target: &Target) -> io::Result<tokio::net::TcpStream> {
        let stream = tokio::net::TcpStream::from_std(self.begin(target)?)?;
        // Loopback connections are there or refused at once, unless the agent does not accept.
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn begin(&self, target: &Target) -> io::Result<TcpStream> {
        enter(&target.namespace)?;
        let begun = begin(target.agent_port);
        if let Err(error) = enter(&self.home) {
            // Never seen. The next connection steps elsewhere; until then the namespace is held.
            log(format_args!("cannot leave a sandbox's network namespace: {error}"));
        }
        begun
    }
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Begins to connect to the agent of the namespace the thread stands in.
fn begin(port: u16) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves the thread to a network namespace of its own, where there is nothing.
#[allow(unsafe_code)]
fn empty_namespace() -> io::Result<OwnedFd> {
    // SAFETY: a new network namespace shares nothing with memory or descriptors; only this thread changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(open("/proc/thread-self/ns/net", flags, Mode::empty())?)
}
