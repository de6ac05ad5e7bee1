//! Why a sandbox could not be launched.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a launch can fail with.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The machine cannot isolate what the specification asks for.
    #[error("this machine cannot make the sandbox: {0}")]
    Unsupported(#[from] Unsupported),
    /// A step failed; what was done before it is undone.
    #[error("the sandbox could not be set up: {0}")]
    Step(StepFailure),
    /// The process that makes sandboxes could not be started.
    #[error("the launcher could not be started: {what}")]
    Start {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The launcher could not prepare what all sandboxes share.
    #[error("the launcher could not prepare the system that sandboxes see: {0}")]
    Prepare(StepFailure),
    /// The launcher has ended; a new one can be started. No sandbox was left half made.
    #[error("the launcher has ended; start a new one")]
    Ended,
    /// The sandbox's first process ended without a word.
    #[error(
        "the sandbox's first process was killed while it set the sandbox up: by its memory limit, or by somebody on this machine"
    )]
    Died,
    /// The description of the sandbox is too large to be handed over.
    #[error("the sandbox's description has {bytes} bytes, more than {most}; shorten its environment")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// A message could not be exchanged with the launcher.
    #[error("a message could not be exchanged with the launcher")]
    Message(#[source] io::Error),
    /// The set-up took longer than it may.
    #[error(
        "setting up the sandbox was given up after {waited:?}; is one of its directories on a stuck network file system?"
    )]
    Late {
        /// How long it was waited for.
        waited: Duration,
    },
}

/// What a machine lacks for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// The kernel refuses a new `/proc`, and the machine's own is never given.
    #[error("the kernel refuses a fresh /proc, which happens in containers; see `stockade doctor`")]
    Proc,
    /// There is no overlayfs for us.
    #[error("overlayfs is not available, so that system directories cannot be shown; see `stockade doctor`")]
    Overlay,
    /// Ranges of users need root.
    #[error("users of its own need root, and we are not; see `stockade doctor`")]
    Users,
}

/// One step that failed: which, on what, and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailure {
    /// The step, as [`super::SetupStep`] shows itself.
    pub step: String,
    /// The path it was about, where it was about one.
    pub path: Option<PathBuf>,
    /// The kernel's error number.
    pub errno: i32,
    /// What may help.
    pub hint: Option<String>,
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// What goes wrong within a step.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) path: Option<PathBuf>,
    pub(crate) errno: Errno,
    pub(crate) hint: Option<&'static str>,
}

impl Problem {
    pub(crate) fn of(self, step: &dyn fmt::Display) -> StepFailure {
        StepFailure {
            step: step.to_string(),
            path: self.path,
            errno: self.errno.raw_os_error(),
            hint: self.hint.map(str::to_owned),
        }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// Of a step that another process performs, or another time.
pub(super) fn out_of_turn() -> Problem {
    Problem::from(Errno::INVAL).hint("this step is in the wrong place of the plan")
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Self {
        Self { path: None, errno, hint: None }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

/// Says which path a failure was about.
pub(crate) trait At<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Problem>;
}

impl<T, E: Into<Problem>> At<T> for Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Problem> {
        self.map_err(|error| {
            let problem = error.into();
            Problem { path: problem.path.or_else(|| Some(path.as_ref().to_owned())), ..problem }
        })
    }
}
