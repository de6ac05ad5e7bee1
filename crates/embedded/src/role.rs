//! One executable, several processes: what this one is for.
//!
//! The server starts the others from its own executable, so that nothing else has to be installed. A
//! process is asked for a role by its name (`argv[0]`), which no user types by accident.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use crate::{launch, relay};

/// The name of the process that makes sandboxes.
pub const LAUNCHER: &str = "stockade-launcher";
/// The name of the process that passes connections on.
pub const RELAY: &str = "stockade-relay";
/// The name of the process inside a sandbox.
pub const AGENT: &str = "stockade-agent";

/// Runs the role this process was started for; `None` when it is none of ours. Call it before any thread
/// is started: the launcher has to be single-threaded.
#[must_use]
pub fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let name = arguments.next()?;
    match name.to_str()? {
        LAUNCHER => Some(launch::process::run()),
        RELAY => Some(relay::process::run()),
        AGENT
            if arguments
                .next()
                .is_some_and(|first| first.as_bytes() == launch::become_sandbox::ARGUMENT.to_bytes()) =>
        {
            Some(launch::become_sandbox::run())
        }
        AGENT => Some(stockade_agent::main()),
        _ => None,
    }
}
