//! In the child: asks the kernel for network parts, in a network namespace that ends with it.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// The kernel answers such a request before the call returns, unless it has to load a module.
const ANSWER: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE_NEW: u16 = 0x600;
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
/// Subsystem 10 of netfilter's netlink, message 16: which generation of rules there is.
const NFT_GETGEN: u16 = 10 << 8 | 16;
const NFT_NEWGEN: u16 = 10 << 8 | 15;

/// Makes a pair of interfaces.
pub(super) fn make_veth() -> rustix::io::Result<()> {
    let mut message = [0_u8; 48];
    header(&mut message, RTM_NEWLINK, REQUEST | ACKNOWLEDGE | CREATE_NEW);
    // After the header (16) and the interface's own part (16, all zero): IFLA_LINKINFO { IFLA_INFO_KIND "veth" }.
    put(&mut message, 32, 16);
    put(&mut message, 34, 18);
    put(&mut message, 36, 9);
    put(&mut message, 38, 1);
    message[40..44].copy_from_slice(b"veth");
    let answer = ask(None, &message)?;
    // An error number of 0 is success.
    if answer.kind == NLMSG_ERROR && answer.number == 0 { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

/// Asks for the generation of the rules, which only a kernel with nf_tables answers.
pub(super) fn ask_nf_tables() -> rustix::io::Result<()> {
    let mut message = [0_u8; 20];
    header(&mut message, NFT_GETGEN, REQUEST);
    let answer = ask(Some(netlink::NETFILTER), &message)?;
    if answer.kind == NFT_NEWGEN { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

struct Answer {
    kind: u16,
    /// The four bytes after the header.
    number: i32,
}

/// The protocol `None` is netlink's first, routes and interfaces.
fn ask(protocol: Option<rustix::net::Protocol>, message: &[u8]) -> rustix::io::Result<Answer> {
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    rustix::net::send(&socket, message, SendFlags::empty())?;
    if rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&ANSWER))? == 0 {
        return Err(Errno::TIMEDOUT);
    }
    let mut buffer = [0_u8; 256];
    let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
    if length < 20 {
        return Err(Errno::BADMSG);
    }
    let [_, _, _, _, low, high, ..] = buffer;
    let number = i32::from_ne_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
    Ok(Answer { kind: u16::from_ne_bytes([low, high]), number })
}

fn header(message: &mut [u8], kind: u16, flags: u16) {
    let length = u16::try_from(message.len()).unwrap_or(0);
    // The length has four bytes, of which the upper two are zero; which those are is the machine's way.
    let at = if cfg!(target_endian = "little") { 0 } else { 2 };
    put(message, at, length);
    put(message, 4, kind);
    put(message, 6, flags);
}

fn put(message: &mut [u8], at: usize, value: u16) {
    message[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}
