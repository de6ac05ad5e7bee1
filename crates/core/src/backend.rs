//! What a place that runs sandboxes must be able to do.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use thiserror::Error;

use crate::contract::ContractVersion;
use crate::egress::NetworkMode;
use crate::id::SandboxId;
use crate::layout::LarkSupport;
use crate::mount::MountError;
use crate::sandbox::{Reconciliation, Sandbox, SandboxEvent};
use crate::spec::SandboxSpec;

/// The log of a sandbox, in pieces as they come.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, BackendError>> + Send>>;

/// A place that runs sandboxes. It holds the truth about them; whoever calls it may be killed at any
/// moment and starts again empty.
///
/// Every call ends by `deadline` where it has one, and by a bound of its own otherwise. Every call may be
/// repeated, and may run at the same time as any other, in this process or in another. A create or delete that
/// is no longer polled leaves its work half done, for the backend to complete later; a caller that can be
/// dropped runs them in a task.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The name of the kind: `kubernetes`, `embedded`.
    fn name(&self) -> &'static str;

    /// What it can provide.
    fn capabilities(&self) -> Capabilities;

    /// Whether its answers can be relied on now; read from memory.
    fn health(&self) -> BackendHealth;

    /// Makes the sandbox, or returns the one that is there when it is the same.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] when another sandbox has the id; see the others at their variants.
    async fn create(&self, spec: &SandboxSpec, deadline: Instant) -> Result<Arc<Sandbox>, BackendError>;

    /// Waits with the answer of a create until the sandbox that was made answers at its URL, for as long as the
    /// backend was told and no longer than `deadline`; returns it as it is then. Nothing is held meanwhile, and a
    /// caller that stops waiting ends the wait. A backend whose URLs answer from the first moment has no need.
    async fn wait_answering(&self, made: Arc<Sandbox>, _deadline: Instant) -> Arc<Sandbox> {
        made
    }

    /// The sandbox, read from memory; its absence is confirmed first.
    ///
    /// # Errors
    /// When memory cannot be relied on and the backend cannot be asked.
    async fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, BackendError>;

    /// All sandboxes that have an address, read from memory, in the order of their ids.
    ///
    /// # Errors
    /// When memory cannot be relied on and the backend cannot be asked.
    async fn list(&self) -> Result<Vec<Arc<Sandbox>>, BackendError>;

    /// Ends the sandbox. It is gone from every answer when this returns; a sandbox that is not there is a
    /// success.
    ///
    /// # Errors
    /// [`BackendError::PartialCleanup`] when something could not be removed.
    async fn delete(&self, id: &SandboxId) -> Result<(), BackendError>;

    /// The truth about a sandbox, never read from memory.
    ///
    /// # Errors
    /// When the truth cannot be had.
    async fn reconcile(&self, id: &SandboxId) -> Result<Reconciliation, BackendError>;

    /// A stable id of the place sandboxes live in, as in [`Reconciliation::backend_namespace`].
    ///
    /// # Errors
    /// When the backend cannot be asked.
    async fn namespace_id(&self) -> Result<String, BackendError>;

    /// The sandbox as soon as it is ready, has failed for good, or the deadline has come.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is not there or disappears meanwhile.
    async fn wait_ready(&self, id: &SandboxId, deadline: Instant) -> Result<Arc<Sandbox>, BackendError>;

    /// What happened to the sandbox lately, oldest first.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is not there.
    async fn events(&self, id: &SandboxId) -> Result<Vec<SandboxEvent>, BackendError>;

    /// What the sandbox's main process wrote.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is not there.
    async fn logs(&self, id: &SandboxId, options: LogOptions) -> Result<LogStream, BackendError>;

    /// Stops the sandbox's processes where they are, and returns it as it is then. It is woken by
    /// [`Self::resume`], and by the next connection to it. A paused one is a success.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is not there; [`BackendError::Unsupported`] where a backend has no way.
    async fn pause(&self, _id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        Err(BackendError::Unsupported { what: "pausing a sandbox" })
    }

    /// Lets a paused sandbox run on, and returns it as it is then. One that runs is a success.
    ///
    /// # Errors
    /// As [`Self::pause`].
    async fn resume(&self, _id: &SandboxId) -> Result<Arc<Sandbox>, BackendError> {
        Err(BackendError::Unsupported { what: "resuming a sandbox" })
    }
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep sending what is written from now on.
    pub follow: bool,
    /// How many of the last lines to begin with.
    pub tail_lines: u32,
    /// Of the process before the last restart.
    pub previous: bool,
}

/// What a backend can provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Which Lark CLI patterns are configured.
    pub lark: LarkSupport,
    /// The contract new sandboxes are made under.
    pub contract: ContractVersion,
    /// Which parts of a request beyond the reference's it can fulfil.
    pub features: Features,
}

/// Parts of a request that not every backend can fulfil. What it cannot is refused by name: a sandbox without
/// the limits or the network policy that was asked for must not come to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Variables of the environment.
    pub env: bool,
    /// Requests and limits.
    pub resources: bool,
    /// Which network modes there are; none: it takes no egress policy.
    pub network: &'static [NetworkMode],
}

/// Whether a backend's answers can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHealth {
    /// Ready to serve.
    pub ready: bool,
    /// Each part by name, with what is wrong with it, `None` when nothing is.
    pub parts: Vec<(&'static str, Option<String>)>,
    /// How many sandboxes memory holds.
    pub sandboxes: usize,
    /// How old the oldest proof is that memory is the truth; `None` before the first.
    pub proven_age: Option<Duration>,
}

/// Why a sandbox that is there is not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Another person's.
    #[error("belongs to another user")]
    User,
    /// Another conversation's.
    #[error("belongs to another thread")]
    Thread,
    /// Its mounts differ, or nobody recorded what they should be.
    #[error(
        "has incompatible or unverifiable mounts; delete it first, or ask for the mounts it was made with"
    )]
    Mounts,
    /// It has not the variables, limits or network that were asked for.
    #[error(
        "is there with something else than was asked for: {differs}; delete it first, or ask for what it has"
    )]
    Extensions {
        /// What differs, without values that may be secrets.
        differs: String,
    },
}

/// The source of an error that came from below.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a backend did not do what it was asked. The text is for the caller; the source is for the log.
#[derive(Debug, Error)]
pub enum BackendError {
    /// A requested mount is not allowed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Another sandbox has the id.
    #[error("sandbox '{id}' {conflict}")]
    Conflict {
        /// The id.
        id: SandboxId,
        /// What differs.
        conflict: Conflict,
    },
    /// There is no such sandbox.
    #[error("Sandbox '{id}' not found")]
    NotFound {
        /// The id.
        id: SandboxId,
    },
    /// The sandbox of this id that was there before is still ending.
    #[error("sandbox '{id}' is still being deleted after {} s; try again", waited.as_secs())]
    Terminating {
        /// The id.
        id: SandboxId,
        /// How long was waited.
        waited: Duration,
    },
    /// Too much is under way.
    #[error("{what}; try again in {} s", retry_after.as_secs())]
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The sandbox is there and cannot do that yet.
    #[error("{message}")]
    NotReady {
        /// What is missing.
        message: String,
    },
    /// The backend does not answer.
    #[error("{message}")]
    Unreachable {
        /// What was tried and what to do.
        message: String,
        /// What went wrong below.
        #[source]
        source: Option<Source>,
    },
    /// The backend did not answer in time.
    #[error("{operation} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The backend does not let us.
    #[error("{message}")]
    Forbidden {
        /// Which right is missing, and where to grant it.
        message: String,
    },
    /// The backend has no room left for another sandbox.
    #[error("{message}")]
    QuotaExceeded {
        /// Which quota.
        message: String,
    },
    /// The request asks for what cannot be had here.
    #[error("{message}")]
    Refused {
        /// What, and what would be possible.
        message: String,
    },
    /// The backend refused what we sent: a setting of this server is wrong.
    #[error("{message}")]
    Rejected {
        /// What it said.
        message: String,
    },
    /// Something could not be removed.
    #[error("Partial cleanup: {failures}")]
    PartialCleanup {
        /// Which parts, and why: `pod: ..., service: ...`.
        failures: String,
    },
    /// This backend cannot do that.
    #[error("{what} is not available on this backend")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
}

impl BackendError {
    /// The word for [`Self::QuotaExceeded`].
    pub const QUOTA_EXCEEDED: &'static str = "quota_exceeded";

    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Mount(_) => "invalid_mount",
            Self::Conflict { conflict: Conflict::User, .. } => "other_user",
            Self::Conflict { conflict: Conflict::Thread, .. } => "other_thread",
            Self::Conflict { conflict: Conflict::Mounts, .. } => "incompatible_mounts",
            Self::Conflict { conflict: Conflict::Extensions { .. }, .. } => "incompatible_extensions",
            Self::NotFound { .. } => "not_found",
            Self::Terminating { .. } => "terminating",
            Self::Overloaded { .. } => "overloaded",
            Self::NotReady { .. } => "not_ready",
            Self::Unreachable { .. } => "backend_unreachable",
            Self::TimedOut { .. } => "backend_timeout",
            Self::Forbidden { .. } => "backend_forbidden",
            Self::QuotaExceeded { .. } => Self::QUOTA_EXCEEDED,
            Self::Refused { .. } => "refused",
            Self::Rejected { .. } => "backend_rejected",
            Self::PartialCleanup { .. } => "partial_cleanup",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}
