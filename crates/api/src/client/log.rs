//! A log as it comes.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Limited};
use tokio::time;

use super::ClientError;

/// The most bytes of an answer that is an error.
const MAX_ERROR: usize = 64 * 1024;

/// A log as it comes.
pub struct LogBody {
    status: StatusCode,
    body: BoxBody<Bytes, Box<dyn Error + Send + Sync>>,
}

impl fmt::Debug for LogBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBody").field("status", &self.status).finish_non_exhaustive()
    }
}

impl LogBody {
    /// The log of an answer, unless that is an error.
    pub(super) async fn of<B>(answer: Response<B>, limit: Duration) -> Result<Self, ClientError>
    where
        B: http_body_util::BodyExt<Data = Bytes, Error: Error + Send + Sync> + Send + Sync + 'static,
    {
        let status = answer.status();
        let body = answer.into_body().map_err(Box::from).boxed();
        if status.is_success() {
            return Ok(Self { status, body });
        }
        let whole = time::timeout(limit, Limited::new(body, MAX_ERROR).collect()).await;
        let whole = whole.map_err(|_| ClientError::TimedOut { operation: "logs", limit })?;
        let whole = whole.map_err(|source| ClientError::Answer { status: status.as_u16(), source })?;
        Err(ClientError::of(status, &whole.to_bytes()))
    }

    /// The next piece; `None` at the end. It waits as long as the server does.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|source| ClientError::Answer { status: self.status.as_u16(), source })?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}
