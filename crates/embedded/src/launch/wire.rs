//! What server and launcher say to each other: one message at a time, with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::StepFailure;
use super::spec::UserMap;
use super::step::SetupStep;
use crate::facts::MachineFacts;
use crate::rootfs::HostSystem;

/// Bytes in one message at most. The kernel's default buffer holds more.
pub(super) const MOST_BYTES: usize = 160 * 1024;
/// Descriptors in one message at most.
pub(super) const MOST_FDS: usize = 32;

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first message: what there is to prepare.
    Prepare {
        facts: MachineFacts,
        system: HostSystem,
        stage: PathBuf,
        hidden: Vec<PathBuf>,
        agent: Option<PathBuf>,
    },
    /// The first half of a launch. Descriptors: the channel to the server, then those of groups to join, then those of
    /// commands.
    Launch { number: u64, steps: Vec<SetupStep>, join: usize, commands: usize },
}

/// From the server to a sandbox's first process: the second half. Descriptors: network namespace, log,
/// and what tells when the agent listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Become {
    pub(super) users: UserMap,
    /// The agent is a program that is executed ([`super::handover::Handover::agent`]).
    pub(super) execute: bool,
    pub(super) steps: Vec<SetupStep>,
}

/// What the process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Became {
    /// All is done but the start of the agent.
    Sandbox {
        messages: Vec<String>,
    },
    Failed(StepFailure),
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Prepared,
    NotPrepared(StepFailure),
    /// The first half is done. Descriptor: of the process.
    Launched {
        number: u64,
        pid: i32,
        start_time: u64,
    },
    Failed {
        number: u64,
        failure: StepFailure,
    },
    Exited {
        pid: i32,
        exit: Exit,
    },
}

/// How a sandbox's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Sends one message; on a non-blocking socket `EAGAIN` says that there is no room now.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    send_bytes(socket, &bytes, fds)
}

pub(super) fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))
        .map(|_| ())
}

/// Receives one message; `None` when the other side has ended.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let bytes = buffer.get(..received.bytes).ok_or(Errno::MSGSIZE)?;
    let message = serde_json::from_slice(bytes).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        let answer = Answer::Exited { pid: 7, exit: Exit::Signal(9) };
        send(a.as_fd(), &answer, &[file.as_fd(), file.as_fd()]).unwrap();
        let mut buffer = vec![0; MOST_BYTES];
        let (received, fds): (Answer, _) = receive(b.as_fd(), &mut buffer).unwrap().unwrap();
        assert!(matches!(received, Answer::Exited { pid: 7, exit: Exit::Signal(9) }));
        assert_eq!(fds.len(), 2);
        drop(a);
        assert!(receive::<Answer>(b.as_fd(), &mut buffer).unwrap().is_none());
    }
}
