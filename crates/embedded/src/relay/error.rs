//! What goes wrong between server and relay.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why the relay did not do something.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The directory the relay is found through cannot be used.
    #[error("{path} cannot hold the relay's socket: {problem}")]
    Place {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The process could not be started.
    #[error("the relay cannot be started from {executable}")]
    Spawn {
        /// What was to be executed.
        executable: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process started and gave up.
    #[error("the relay did not start: {0}; its log is relay.log in the state directory")]
    Start(String),
    /// It did not answer in time.
    #[error(
        "the relay{} does not answer within {seconds} s; when it hangs, end it with kill -9, and it is started anew",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Silent {
        /// Its process, where it is known.
        pid: Option<i32>,
        /// How long it had.
        seconds: u64,
    },
    /// It lives in a user namespace that the server did not join.
    #[error(
        "the relay (process {pid}) lives in another user namespace ({theirs}) than the server ({ours}); \
         end it with kill {pid}, or start the server as the user who started the relay"
    )]
    OtherUsers {
        /// Its process.
        pid: i32,
        /// The number of its user namespace.
        theirs: u64,
        /// The number of ours.
        ours: u64,
    },
    /// Another process has the port of a sandbox.
    #[error(
        "{address} of sandbox {id} is in use by another process; end that process, or delete the sandbox"
    )]
    AddressInUse {
        /// The sandbox.
        id: String,
        /// Its address.
        address: SocketAddr,
    },
    /// The relay knows no such sandbox.
    #[error("the relay has no port for sandbox {0}")]
    Unknown(String),
    /// The relay has as many sandboxes as its descriptors allow.
    #[error("the relay is full: {0}")]
    Full(String),
    /// It refused for another reason.
    #[error("the relay cannot do it: {0}")]
    Refused(String),
    /// It ended meanwhile. Connect again, which starts another one.
    #[error("the relay ended")]
    Ended,
    /// It said what nobody asked for.
    #[error("the relay answers what was not asked; it is of another version, restart it with stockade down")]
    Nonsense,
    /// The socket to it failed.
    #[error("the relay's socket fails")]
    Socket(#[source] io::Error),
}
