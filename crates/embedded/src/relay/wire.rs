//! What server and relay say to each other: one JSON text a packet, descriptors beside it.
//!
//! A relay may be older or newer than the server that finds it. `hello` and `shutdown` therefore keep their
//! form for ever; everything else goes with [`VERSION`].

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of everything but `hello` and `shutdown`.
pub(super) const VERSION: u32 = 2;
/// The longest message in bytes.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// How many ports one answer lists: at most about 300 bytes each.
pub(super) const PAGE: usize = 128;

/// A question of the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// Comes back with the answer.
    pub(super) number: u64,
    pub(super) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    Hello {
        version: u32,
    },
    Listen {
        id: String,
        address: SocketAddr,
    },
    /// With the network namespace.
    Attach {
        id: String,
        agent_port: u16,
    },
    Detach {
        id: String,
        /// Why, for callers whose request is cut by it. An older server does not say.
        #[serde(default)]
        why: Option<Failure>,
    },
    /// It is not started again.
    Fail {
        id: String,
        failure: Failure,
    },
    /// With the descriptor to write to.
    Pause {
        id: String,
        since: u64,
        write: Vec<u8>,
    },
    Resume {
        id: String,
    },
    Remove {
        id: String,
    },
    List {
        after: Option<String>,
    },
    ServeNames {
        gateway: Ipv4Addr,
        /// The addresses of sandboxes, as a range.
        clients: String,
    },
    Shutdown,
}

/// Why a sandbox has stopped, for its callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In one word.
    pub reason: String,
    /// As a sentence.
    pub message: String,
}

/// What comes from the relay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    Answer { number: u64, answer: Result<Answer, Refusal> },
    Event(Event),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done,
    Hello {
        version: u32,
        /// The number of the user namespace the relay lives in.
        user_namespace: u64,
    },
    Ports {
        ports: Vec<Listed>,
        more: bool,
    },
}

/// Why a question was not answered with what it asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) kind: RefusalKind,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefusalKind {
    AddressInUse,
    Unknown,
    Full,
    Invalid,
    System,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    Wanted { id: String },
    Woken { id: String },
}

/// One sandbox as the relay knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The sandbox.
    pub id: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The number of the network namespace that connections lead to.
    pub namespace: Option<u64>,
    /// Whether the next byte from a caller wakes it.
    pub paused: bool,
    /// Connections open now.
    pub open: u64,
    /// Connections since the port was opened.
    pub connections: u64,
    /// Connections that wait for the sandbox.
    pub waiting: u64,
    /// Connections that were answered with 503.
    pub refused: u64,
    /// Bytes from callers to the sandbox.
    pub bytes_in: u64,
    /// Bytes from the sandbox to callers.
    pub bytes_out: u64,
    /// Milliseconds since a byte went either way, or since the port was opened.
    pub idle_ms: u64,
}
