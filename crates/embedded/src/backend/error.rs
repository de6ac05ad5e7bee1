//! From what goes wrong here to what callers are told.

use std::path::PathBuf;
use std::time::Duration;

use stockade_core::{BackendError, SandboxId};
use thiserror::Error;

use crate::cgroup::CgroupError;
use crate::launch::LaunchError;
use crate::network::{NetworkError, PolicyError};
use crate::relay::RelayError;
use crate::settings::SettingsProblem;
use crate::state::StateError;

/// Why the backend does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Settings that do not go together.
    #[error("the settings are wrong{}", lines(.0))]
    Settings(Vec<SettingsProblem>),
    /// The machine cannot isolate anything.
    #[error("this machine cannot make sandboxes: {0}; see `stockade doctor`")]
    Machine(String),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[from] StateError),
    /// No control groups.
    #[error("control groups cannot be used")]
    Cgroup(#[from] CgroupError),
    /// No networks.
    #[error("networks cannot be made")]
    Network(#[from] NetworkError),
    /// The launcher does not start.
    #[error("the launcher cannot be started")]
    Launcher(#[source] LaunchError),
    /// The relay does not start.
    #[error("the relay cannot be started")]
    Relay(#[source] RelayError),
    /// Something else is where a directory of the operator's must be.
    #[error("{} is no directory ({variable})", path.display())]
    NotDirectory {
        /// What is there.
        path: PathBuf,
        /// Which setting names it.
        variable: &'static str,
    },
    /// A directory of the operator's cannot be made.
    #[error("{} is not there and cannot be made ({variable})", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Which setting names it.
        variable: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something of the kernel's cannot be read.
    #[error("cannot read {what}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

fn lines(problems: &[SettingsProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Why a sandbox could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartFailure {
    #[error("its control group cannot be made")]
    Cgroup(#[source] CgroupError),
    #[error("its network cannot be made")]
    Network(#[source] NetworkError),
    #[error("its log cannot be opened")]
    Log(#[source] std::io::Error),
    #[error("the directory of its files cannot be made")]
    Files(#[source] std::io::Error),
    #[error("files prepared ahead cannot be removed")]
    Standby(#[source] StateError),
    #[error("what it may reach cannot be decided")]
    Policy(#[source] PolicyError),
    #[error("its processes cannot be started")]
    Launch(#[source] LaunchError),
    #[error("its port cannot be opened")]
    Address(#[source] BackendError),
    #[error("its address cannot be opened")]
    Relay(#[source] RelayError),
    #[error("a descriptor cannot be copied")]
    Descriptor(#[source] std::io::Error),
    #[error("its record cannot be written")]
    Record(#[source] BackendError),
    #[error("its agent ended before it listened{}", said(.last_words))]
    Ended { last_words: String },
    #[error("the worker that makes it ended")]
    Worker,
}

fn said(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; the last it wrote: {last_words}") }
}

impl StartFailure {
    pub(crate) fn into_backend(self, id: &SandboxId) -> BackendError {
        if let Self::Launch(error @ LaunchError::TooLarge { .. }) = &self {
            return BackendError::Refused { message: error.to_string() };
        }
        if let Self::Address(error) = self {
            return error;
        }
        let message = format!("sandbox '{id}' cannot be started: {}", chain(&self));
        // The message has all of it already.
        BackendError::Unreachable { message, source: None }
    }
}

/// The error and all it came from, as one sentence: here the causes are what helps (a step, a path, an error
/// number), and nothing in them is secret.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text.push_str(": ");
            text.push_str(&below_text);
        }
        source = below.source();
    }
    text
}

pub(crate) fn state(id: &SandboxId, source: StateError) -> BackendError {
    let message = format!("the record of sandbox '{id}' cannot be written: {}", chain(&source));
    BackendError::Unreachable { message, source: Some(source.into()) }
}

pub(crate) fn timed_out(operation: &'static str, limit: Duration) -> BackendError {
    BackendError::TimedOut { operation, limit }
}
