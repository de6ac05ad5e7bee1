//! What is written down of one sandbox: enough to find it, to start it again, and to remove it.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stockade_core::{ContractVersion, Identity, SandboxId, ThreadId, UserId};

use super::StateError;
use crate::launch::LaunchSpec;
use crate::network::ResolvedPolicy;

/// The format that is written. A change that an older version would misread gets a new number.
const VERSION: u64 = 1;

/// One sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: SandboxId,
    /// Differs for each sandbox ever made under one id.
    pub(crate) incarnation: String,
    pub(crate) created_at: Timestamp,
    pub(crate) identity: Identity,
    pub(crate) contract: ContractVersion,
    /// Of its mounts; see [`stockade_core::signature`].
    pub(crate) signature: String,
    /// Its port on the machine.
    pub(crate) port: u16,
    /// Its number among those that are there: decides users and addresses.
    pub(crate) slot: u32,
    /// How it is started, each time.
    pub(crate) launch: LaunchSpec,
    pub(crate) limits: StoredLimits,
    pub(crate) network: ResolvedPolicy,
    /// Remarks on how it was made, for the answer.
    pub(crate) notes: Vec<String>,
    pub(crate) life: Life,
}

/// What changes while it lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    /// Its main process, when there is one.
    pub(crate) process: Option<ProcessId>,
    /// Its processes do not run, by request.
    pub(crate) paused: bool,
    /// When it was started again, lately.
    pub(crate) restarts: Vec<Timestamp>,
    /// How its main process ended last.
    pub(crate) last_exit: Option<Exit>,
    /// Why it failed for good.
    pub(crate) failure: Option<Failure>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Nobody was told that it is there.
    Making,
    /// It is there and should run.
    Live,
    /// It is there and is not started again.
    Failed,
    /// On its way out.
    Deleting,
}

/// Why a sandbox is not started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// In one word.
    pub(crate) reason: String,
    /// As a sentence.
    pub(crate) message: String,
}

/// The reason of a sandbox whose files have grown beyond their limit.
pub(crate) const EVICTED: &str = "Evicted";

impl Life {
    /// Why its files can be read and nothing else: it was stopped for what they take, and they are whose it was.
    pub(crate) fn only_reads(&self) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| self.phase == Phase::Failed && failure.reason == EVICTED)
    }

    /// Whether a process of it may run: as a sandbox, or to show its files.
    pub(crate) fn may_run(&self) -> bool {
        self.phase == Phase::Live || self.only_reads().is_some()
    }
}

/// One process of this machine, and no other that ever has its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks between the machine's start and its own.
    pub(crate) start_time: u64,
    /// Which start of the machine.
    pub(crate) boot_id: String,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) at: Timestamp,
    /// Its exit code, when it ended itself and somebody was there to hear it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The kernel ended a process of it for want of memory since it was started.
    pub(crate) out_of_memory: bool,
}

/// Hard limits, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLimits {
    pub(crate) millicores: u32,
    pub(crate) memory: u64,
    pub(crate) storage: u64,
    pub(crate) pids: u32,
}

/// The record as it lies in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u64,
    id: String,
    incarnation: String,
    created_at: Timestamp,
    user: String,
    thread: String,
    contract: u8,
    signature: String,
    port: u16,
    slot: u32,
    launch: LaunchSpec,
    limits: StoredLimits,
    network: ResolvedPolicy,
    notes: Vec<String>,
    life: Life,
}

impl Record {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, StateError> {
        let stored = Stored {
            version: VERSION,
            id: self.id.to_string(),
            incarnation: self.incarnation.clone(),
            created_at: self.created_at,
            user: self.identity.user.to_string(),
            thread: self.identity.thread.to_string(),
            contract: self.contract.number(),
            signature: self.signature.clone(),
            port: self.port,
            slot: self.slot,
            launch: self.launch.clone(),
            limits: self.limits,
            network: self.network.clone(),
            notes: self.notes.clone(),
            life: self.life.clone(),
        };
        serde_json::to_vec(&stored)
            .map_err(|source| StateError::Record { path: Path::new(self.id.as_str()).to_owned(), source })
    }

    pub(super) fn from_json(id: &SandboxId, path: &Path, bytes: &[u8]) -> Result<Self, StateError> {
        check_version(path, bytes, VERSION)?;
        let bad = |source| StateError::Record { path: path.to_owned(), source };
        let stored: Stored = serde_json::from_slice(bytes).map_err(bad)?;
        let wrong = |what: String| bad(<serde_json::Error as serde::de::Error>::custom(what));
        if stored.id != id.as_str() {
            return Err(wrong(format!("it is of sandbox {:?}", stored.id)));
        }
        let contract = ContractVersion::from_number(stored.contract.into())
            .ok_or_else(|| wrong(format!("there is no contract {}", stored.contract)))?;
        let identity = Identity {
            user: UserId::new(&stored.user).map_err(|error| wrong(format!("user {error}")))?,
            thread: ThreadId::new(&stored.thread).map_err(|error| wrong(format!("thread {error}")))?,
        };
        Ok(Self {
            id: id.clone(),
            incarnation: stored.incarnation,
            created_at: stored.created_at,
            identity,
            contract,
            signature: stored.signature,
            port: stored.port,
            slot: stored.slot,
            launch: stored.launch,
            limits: stored.limits,
            network: stored.network,
            notes: stored.notes,
            life: stored.life,
        })
    }
}

/// Whether a file is in a format that we know. What has no version is not ours.
pub(super) fn check_version(path: &Path, bytes: &[u8], known: u64) -> Result<(), StateError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let found: Versioned = serde_json::from_slice(bytes)
        .map_err(|source| StateError::Record { path: path.to_owned(), source })?;
    if found.version == 0 || found.version > known {
        return Err(StateError::Version { path: path.to_owned(), found: found.version, known });
    }
    Ok(())
}
