//! What a caller asks for, checked.

use crate::id::{SandboxId, ThreadId, UserId};
use crate::mount::RequestedMount;
use crate::sandbox::Identity;

/// The most extra mounts one sandbox may ask for (the reference's limit).
pub const MAX_EXTRA_MOUNTS: usize = 10;

/// One sandbox as a caller asks for it. Settings of the server (image, storage) are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The name of the sandbox.
    pub id: SandboxId,
    /// The conversation it belongs to.
    pub thread: ThreadId,
    /// The person it belongs to.
    pub user: UserId,
    /// Directories beyond the usual ones, in request order; at most [`MAX_EXTRA_MOUNTS`].
    pub extra_mounts: Vec<RequestedMount>,
    /// Which Lark CLI pattern is asked for.
    pub lark: LarkRequest,
}

/// Which Lark CLI patterns a request asks for. What is not configured is not provided; the broker wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LarkRequest {
    /// Pattern A: an init container installs the CLI.
    pub runtime: bool,
    /// Pattern B: a sidecar holds the credentials, the sandbox gets a shim.
    pub broker: bool,
}

impl SandboxSpec {
    /// A sandbox with nothing beyond the usual.
    #[must_use]
    pub fn new(id: SandboxId) -> Self {
        let thread = ThreadId::from(&id);
        Self { id, thread, user: UserId::default(), extra_mounts: Vec::new(), lark: LarkRequest::default() }
    }

    /// Whose sandbox this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { user: self.user.clone(), thread: self.thread.clone() }
    }
}
