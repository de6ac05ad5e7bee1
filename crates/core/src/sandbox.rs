//! A sandbox as a backend sees it.

use std::fmt;

use jiff::Timestamp;

use crate::contract::ContractVersion;
use crate::id::{SandboxId, ThreadId, UserId};

/// What the life of a sandbox has come to. The names are those of the Pod phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted, not all of it runs yet.
    Pending,
    /// Its processes run. Callers treat this one alone as alive.
    Running,
    /// Its processes ended well and are not started again.
    Succeeded,
    /// Its processes ended badly and are not started again.
    Failed,
    /// Its state cannot be had, usually because its node does not answer.
    Unknown,
    /// Its address is there and it is not.
    NotFound,
}

impl Status {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
            Self::NotFound => "NotFound",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose sandbox it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The person.
    pub user: UserId,
    /// The conversation.
    pub thread: ThreadId,
}

/// One sandbox as a backend saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its name.
    pub id: SandboxId,
    /// Where it is reached.
    pub url: String,
    /// What its life has come to.
    pub status: Status,
    /// Whether it answers its health check and is not on its way out.
    pub ready: bool,
    /// Why it is not ready, in one word (`ImagePullBackOff`, `Unschedulable`, `FailedMount`), or what has happened to
    /// it a short while ago (`OOMKilled`).
    pub reason: Option<String>,
    /// The same as a sentence that says what to do.
    pub message: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whose it is; `None` when whoever made it did not record it.
    pub identity: Option<Identity>,
    /// The contract it was made under; `None` when that was not recorded.
    pub contract: Option<ContractVersion>,
    /// Bytes that its files outside its mounts took when they were last measured; `None` when nobody measures them.
    pub disk_used: Option<u64>,
}

/// The answer of the reconciliation endpoint: the truth, not an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    /// A stable id of the place sandboxes live in; another one means: not the same world.
    pub backend_namespace: String,
    /// The sandbox, when it is there.
    pub found: Option<FoundSandbox>,
}

/// A sandbox that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSandbox {
    /// Differs for each sandbox ever made under one id.
    pub incarnation: String,
    /// Where it is reached, when it has an address.
    pub url: Option<String>,
    /// Whose it is, when recorded.
    pub identity: Option<Identity>,
    /// The contract it was made under, when recorded.
    pub contract: Option<ContractVersion>,
}

/// Something that happened to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxEvent {
    /// When it was last seen.
    pub last_seen: Option<Timestamp>,
    /// How often it was seen.
    pub count: u32,
    /// Whether it is a warning.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// As a sentence.
    pub message: String,
}
