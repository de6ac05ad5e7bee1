//! What a caller asks for, checked.

use std::collections::BTreeMap;
use std::fmt;

use crate::egress::EgressPolicy;
use crate::id::{SandboxId, ThreadId, UserId};
use crate::mount::RequestedMount;
use crate::resources::Resources;
use crate::sandbox::Identity;

/// One sandbox as a caller asks for it. Settings of the server (image, storage) are not part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The name of the sandbox.
    pub id: SandboxId,
    /// The conversation it belongs to.
    pub thread: ThreadId,
    /// The person it belongs to.
    pub user: UserId,
    /// Directories beyond the usual ones, in request order; [`crate::mount::check_requested`] bounds them.
    pub extra_mounts: Vec<RequestedMount>,
    /// Which Lark CLI pattern is asked for.
    pub lark: LarkRequest,
    /// Variables of the sandbox's environment, by name; they may be secrets.
    pub env: BTreeMap<String, String>,
    /// How much of the machine it may use.
    pub resources: Resources,
    /// What it may reach.
    pub network: EgressPolicy,
}

impl fmt::Debug for SandboxSpec {
    /// Without the values of the environment: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxSpec")
            .field("id", &self.id)
            .field("thread", &self.thread)
            .field("user", &self.user)
            .field("extra_mounts", &self.extra_mounts)
            .field("lark", &self.lark)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("resources", &self.resources)
            .field("network", &self.network)
            .finish()
    }
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
        Self {
            id,
            thread,
            user: UserId::default(),
            extra_mounts: Vec::new(),
            lark: LarkRequest::default(),
            env: BTreeMap::new(),
            resources: Resources::default(),
            network: EgressPolicy::default(),
        }
    }

    /// Whose sandbox this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { user: self.user.clone(), thread: self.thread.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_specification_has_no_secrets() {
        let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
        spec.env.insert("API_TOKEN".into(), "s3cret".into());
        let shown = format!("{spec:?}");
        assert!(shown.contains("API_TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
}
