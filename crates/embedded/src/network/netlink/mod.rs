//! Netlink, as little of it as networks need: requests, attributes, answers.
//!
//! Ours, and not the crates `rtnetlink` and `netlink-packet-netfilter`: the first is a task, a channel and
//! a future for every request where one `sendto` and one `recv` do (a sandbox's network is a handful of
//! requests, made by threads that stand in the right namespace), and the second lacks most expressions a
//! filter is made of (`fib`, `ct`, `masq`, `reject`, ranges of concatenated keys). Both families have the
//! same framing, so one small encoder serves both.

mod message;
mod socket;

pub(crate) use message::{Attributes, Request, WithAttributes, attributes, find};
pub use socket::NetlinkError;
pub(crate) use socket::{Changes, Socket};
