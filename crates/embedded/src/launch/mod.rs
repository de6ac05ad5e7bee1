//! From a specification to a running sandbox.
//!
//! ```text
//!   server   plan(spec, facts) ── first half of the steps ──► launcher ── clone ──► child, pid 1 of the sandbox
//!            Standby ◄── pidfd ─────────────────────────────     │ ◄── "prepared" ──── performs them, executes our program
//!               │                                                                     waits
//!               └── second half of the steps, log ──────────────────────────────────► performs them, becomes the agent
//! ```
//!
//! The plan is data and can be shown. The child undoes nothing on failure, because nothing it does outlives it:
//! mounts go with its mount namespace, which goes with its last process.

mod assembly;
pub(crate) mod become_sandbox;
mod child;
pub(crate) mod failure;
mod handle;
mod handover;
pub(crate) mod mounts;
mod outer;
pub(crate) mod paths;
mod plan;
mod prepare;
pub(crate) mod process;
pub mod spec;
mod standby;
pub mod step;
pub(crate) mod sys;
pub(crate) mod users;
mod wire;

use std::time::Duration;

pub use failure::{LaunchError, StepFailure, Unsupported};
pub use handle::{LaunchFds, Launcher, LauncherOptions};
pub use outer::{OuterError, enter_outer_namespaces};
pub use plan::{HOME, plan};
pub use spec::LaunchSpec;
pub use standby::{Launched, Standby, StandbyFds};
pub use step::SetupStep;
pub use wire::Exit;

/// How long the set-up of a sandbox may take; it takes milliseconds unless a directory does not answer.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(20);

/// Terminals of one sandbox at most: the agent's sessions (128) and its terminals over WebSockets (32), and some for
/// programs. All sandboxes together share `kernel.pty.max`.
pub(crate) const TERMINALS: u32 = 192;
