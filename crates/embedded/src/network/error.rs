//! What can go wrong with a network.

use std::io;

use super::netlink::NetlinkError;
use crate::settings::Subnet;

/// Why a network could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A thread was not started.
    #[error("a thread for network namespaces could not be started")]
    Thread(#[source] io::Error),
    /// The thread that makes namespaces has ended.
    #[error("the thread that makes network namespaces has ended; restart the server")]
    Ended,
    /// A namespace was not made.
    #[error("a network namespace could not be made (see /proc/sys/user/max_net_namespaces)")]
    Unshare(#[source] io::Error),
    /// The machine's own namespace could not be opened or entered.
    #[error("the way back from a new network namespace failed")]
    Home(#[source] io::Error),
    /// Loopback was not switched on.
    #[error("the loopback interface of a new network namespace could not be switched on")]
    Loopback(#[source] NetlinkError),
    /// One request to the kernel failed.
    #[error("could not {doing}")]
    Step {
        /// What was to be done, with the names of what it was done to.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// We may not change the machine's own network.
    #[error("this user may not change the machine's network: run as root (CAP_NET_ADMIN) for open networks")]
    Rights(#[source] NetlinkError),
    /// An interface that was just made is gone.
    #[error(
        "the interface {0} is gone right after it was made: does something else manage the interfaces here?"
    )]
    Vanished(String),
    /// All addresses are taken.
    #[error("{subnet} has addresses for {capacity} sandboxes: set SANDBOX_SUBNET to a larger range")]
    Full {
        /// The range.
        subnet: Subnet,
        /// How many sandboxes it has room for.
        capacity: u32,
    },
    /// The range that was set is in use.
    #[error(
        "SANDBOX_SUBNET is {subnet}, and {clash} leads there already: choose a range that nothing here uses"
    )]
    Clash {
        /// The range.
        subnet: Subnet,
        /// The route in the way.
        clash: String,
    },
    /// The range was changed while sandboxes use the old one.
    #[error(
        "SANDBOX_SUBNET is {wanted}, and sandboxes with addresses of {found} still run: remove them first (`stockade down`), or set it back"
    )]
    SubnetInUse {
        /// The range in use.
        found: Subnet,
        /// The range that was set.
        wanted: Subnet,
    },
    /// No range is free.
    #[error(
        "every range of addresses that we would take is in use here: set SANDBOX_SUBNET to one that is not"
    )]
    NoSubnet,
    /// Forwarding could not be read or switched.
    #[error("net.ipv4.ip_forward could not be read or set (is /proc/sys read-only here?)")]
    Forwarding(#[source] io::Error),
    /// The proof could not be tried.
    #[error("a connection to prove forwarding could not be tried")]
    Probe(#[source] io::Error),
    /// The proof failed.
    #[error("this machine does not pass on what sandboxes send: {remedy}")]
    NotForwarded {
        /// What to do.
        remedy: String,
        /// How the connection failed.
        #[source]
        source: io::Error,
    },
    /// Name queries do not arrive.
    #[error("this machine does not take name queries of sandboxes: {remedy}")]
    NamesBlocked {
        /// What to do.
        remedy: String,
        /// How the connection failed.
        #[source]
        source: io::Error,
    },
}

/// Says what was being done when the kernel refused.
pub(super) trait Doing<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, NetworkError>;
}

impl<T> Doing<T> for Result<T, NetlinkError> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|source| NetworkError::Step { doing: doing(), source })
    }
}

/// An error with the reasons behind it, in one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line
}
