//! Every answer has its time, shorter than the caller's own.

use std::future::Future;
use std::panic;
use std::time::Duration;

use stockade_core::BackendError;
use tokio::time::{self, Instant};
use tracing::Instrument;

/// DeerFlow gives up on a create after 30 s.
pub(crate) const CREATE: Duration = Duration::from_secs(28);
/// DeerFlow gives up on a delete after 15 s.
pub(crate) const DELETE: Duration = Duration::from_secs(14);
/// DeerFlow gives up on a get, a list or a reconciliation after 10 s.
pub(crate) const READ: Duration = Duration::from_secs(9);
/// What a backend is told to be done before the answer is due, so that its own error gets out.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);

/// The time that one operation has, from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    operation: &'static str,
    limit: Duration,
    end: Instant,
}

impl Deadline {
    pub(crate) fn start(operation: &'static str, limit: Duration) -> Self {
        Self { operation, limit, end: Instant::now() + limit }
    }

    /// When the backend has to be done.
    pub(crate) fn for_backend(&self) -> Instant {
        self.end - MARGIN
    }

    /// The result of reading, or an error when the time is up.
    pub(crate) async fn read<T>(
        &self,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        time::timeout_at(self.end, work).await.unwrap_or_else(|_| Err(self.passed()))
    }

    /// The result of writing, or an error when the time is up. The work itself goes on to its own end: a
    /// caller that hangs up must not leave half a sandbox behind.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, BackendError> {
        let task = tokio::spawn(work.in_current_span());
        match time::timeout_at(self.end, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(failed)) => match failed.try_into_panic() {
                Ok(payload) => panic::resume_unwind(payload),
                Err(_) => Err(self.passed()), // the runtime is going down
            },
            Err(_) => Err(self.passed()),
        }
    }

    fn passed(&self) -> BackendError {
        BackendError::TimedOut { operation: self.operation, limit: self.limit }
    }
}
