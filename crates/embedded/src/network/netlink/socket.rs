//! A netlink socket: it stands in the network namespace its maker stood in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

use super::message::{Request, answers, u32_at};

/// What one datagram of an answer may hold; the kernel fills at most 32 KiB of a dump.
const DATAGRAM: usize = 64 * 1024;
/// How long the kernel may take for an answer; it answers within the call, so this is for a broken one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to read a table that changes meanwhile.
const DUMP_ATTEMPTS: usize = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// In the header of a dump's message: the table changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The kernel refused it.
    #[error("refused by the kernel")]
    Refused(#[source] io::Error),
    /// The socket failed.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// What was read kept changing.
    #[error("what was to be read changed {DUMP_ATTEMPTS} times while it was read")]
    Unsteady,
}

impl NetlinkError {
    /// The kernel's reason, when it is one of `errno`'s.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) | Self::Socket(error) => error.raw_os_error(),
            Self::Unsteady => None,
        }
    }
}

/// What the kernel told of changes.
#[derive(Debug)]
pub(crate) enum Changes {
    /// Nothing, for a while.
    None,
    /// These: types and bodies.
    These(Vec<(u16, Vec<u8>)>),
    /// More than fitted: anything may have changed.
    Lost,
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// For links, addresses and routes.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        // NETLINK_ROUTE is zero, which `rustix` writes so.
        Self::open(None)
    }

    /// For nf_tables.
    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// For what the kernel tells of changes to nf_tables.
    pub(crate) fn netfilter_changes() -> Result<Self, NetlinkError> {
        /// The bit of `NFNLGRP_NFTABLES`, which is 7.
        const NFTABLES: u32 = 1 << 6;
        let socket = Self::netfilter()?;
        rustix::net::bind(&socket.socket, &netlink::SocketAddrNetlink::new(0, NFTABLES))
            .map_err(|errno| NetlinkError::Socket(errno.into()))?;
        Ok(socket)
    }

    /// Waits a while for the next changes: their types and bodies.
    pub(crate) fn changes(&self) -> Result<Changes, NetlinkError> {
        let mut datagram = vec![0; DATAGRAM];
        match self.receive(&mut datagram) {
            Ok(length) => {
                let changes = answers(&datagram[..length]);
                Ok(Changes::These(changes.map(|change| (change.kind, change.body.to_vec())).collect()))
            }
            Err(error) if error.errno() == Some(libc::EAGAIN) => Ok(Changes::None),
            Err(error) if error.errno() == Some(libc::ENOBUFS) => Ok(Changes::Lost),
            Err(error) => Err(error),
        }
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self, NetlinkError> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| NetlinkError::Socket(errno.into()))?;
        for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))
                .map_err(|errno| NetlinkError::Socket(errno.into()))?;
        }
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits for the kernel's answer to it.
    pub(crate) fn request(&mut self, mut request: Request) -> Result<(), NetlinkError> {
        request.add_flags(NLM_F_ACK);
        let sequence = self.next_sequence();
        self.send(&request.finish(sequence))?;
        self.acknowledged(sequence, sequence)
    }

    /// Sends requests that the kernel carries out all or none: between the two marks of a batch.
    pub(crate) fn batch(
        &mut self,
        begin: &Request,
        requests: &[Request],
        end: &Request,
    ) -> Result<(), NetlinkError> {
        let Some((last, others)) = requests.split_last() else { return Ok(()) };
        let mut bytes = begin.finish(self.next_sequence());
        let first = self.sequence;
        for request in others {
            bytes.extend(request.finish(self.next_sequence()));
        }
        // Only the last is answered when all went well; what went wrong is answered before, at its own number or the
        // beginning's. The end has no answer before Linux 6.10.
        let mut asked = last.clone();
        asked.add_flags(NLM_F_ACK);
        let last = self.next_sequence();
        bytes.extend(asked.finish(last));
        bytes.extend(end.finish(self.next_sequence()));
        self.send(&bytes)?;
        self.acknowledged(first, last)
    }

    /// Reads a table: the bodies of all messages.
    pub(crate) fn dump(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut request = request.clone();
        request.add_flags(NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            self.send(&request.finish(sequence))?;
            if let Some(found) = self.read_dump(sequence)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unsteady)
    }

    /// Sends one request that is answered by one message: its body.
    pub(crate) fn get(&mut self, request: &Request) -> Result<Vec<u8>, NetlinkError> {
        let sequence = self.next_sequence();
        self.send(&request.finish(sequence))?;
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = self.receive(&mut datagram)?;
            for answer in answers(&datagram[..length]).filter(|answer| answer.sequence == sequence) {
                match answer.kind {
                    NLMSG_ERROR => refused(answer.body)?,
                    _ => return Ok(answer.body.to_vec()),
                }
            }
        }
    }

    fn read_dump(&mut self, sequence: u32) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
        let mut found = Vec::new();
        let mut steady = true;
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = self.receive(&mut datagram)?;
            for answer in answers(&datagram[..length]).filter(|answer| answer.sequence == sequence) {
                steady &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.kind {
                    NLMSG_ERROR => refused(answer.body)?,
                    NLMSG_DONE => {
                        refused(answer.body)?;
                        return Ok(steady.then_some(found));
                    }
                    _ => found.push(answer.body.to_vec()),
                }
            }
        }
    }

    /// Waits for the answer to the last of some requests; the first that was refused is the answer.
    fn acknowledged(&mut self, first: u32, last: u32) -> Result<(), NetlinkError> {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = self.receive(&mut datagram)?;
            for answer in answers(&datagram[..length]) {
                // Answers to an earlier request that was given up on.
                if answer.kind != NLMSG_ERROR || !(first..=last).contains(&answer.sequence) {
                    continue;
                }
                refused(answer.body)?;
                if answer.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        // Never zero, which is the sequence of what the kernel says on its own account.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        send(&self.socket, bytes, SendFlags::empty()).map_err(|errno| NetlinkError::Socket(errno.into()))?;
        Ok(())
    }

    fn receive(&self, datagram: &mut [u8]) -> Result<usize, NetlinkError> {
        loop {
            match recv(&self.socket, &mut *datagram, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::Socket(errno.into())),
            }
        }
    }
}

/// Reads the body of an error message: a negative `errno`, or zero for "done".
fn refused(body: &[u8]) -> Result<(), NetlinkError> {
    let code = u32_at(body, 0).unwrap_or_default().cast_signed();
    if code == 0 { Ok(()) } else { Err(NetlinkError::Refused(io::Error::from_raw_os_error(-code))) }
}
