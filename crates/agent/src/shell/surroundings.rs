//! What every bash is started with.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::http::ApiError;
use crate::kills::Kills;
use crate::output::Budget;
use crate::pool::Pool;
use crate::process::Reaper;

/// What all sessions are started with.
pub(crate) struct Surroundings {
    pub(crate) reaper: Reaper,
    pub(crate) pool: Pool,
    pub(crate) budget: Arc<Budget>,
    pub(crate) bash: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// What was ended for memory.
    pub(crate) kills: Arc<Kills>,
}

impl Surroundings {
    /// Why there is no bash. An image without one is not a fault that passes: callers that see a 5xx throw
    /// the sandbox away and make another, which would lack it too.
    pub(crate) fn cannot_start_bash(&self, error: &io::Error) -> ApiError {
        if error.kind() == io::ErrorKind::NotFound && !self.bash.exists() {
            return ApiError::bad_request("bash is not in this image, and commands need it")
                .with_hint("use an image that has it; files and search work without");
        }
        ApiError::unavailable(format!("cannot start bash: {error}"))
            .with_hint("the sandbox may be out of processes, memory or descriptors")
    }
}
