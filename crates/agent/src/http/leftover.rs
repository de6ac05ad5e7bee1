//! What a client still sends when its answer is ready, as to an upload that failed at its start.
//!
//! A connection closed over bytes nobody read is reset, and the reset overtakes the answer: the client
//! sees a broken connection in place of the error. So what is left of a request is read, within bounds,
//! before it is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;

/// Most of what is read for nothing; eight times the longest JSON body.
const BYTES: usize = 64 * 1024 * 1024;
/// Longest time that an answer waits for it.
const TIME: Duration = Duration::from_secs(2);

/// The body of a request that is under way.
pub(crate) struct Leftover(Arc<Mutex<Incoming>>);

/// The same body, for the handler.
struct Lent(Arc<Mutex<Incoming>>);

impl Leftover {
    /// The body for the handler, and what will be left of it.
    pub(crate) fn of(body: Incoming) -> (Body, Self) {
        let shared = Arc::new(Mutex::new(body));
        (Body::new(Lent(Arc::clone(&shared))), Self(shared))
    }

    /// Reads what is left, if nobody else does: a body that is being passed on is still in use.
    pub(crate) async fn discard(self) {
        let Some(body) = Arc::into_inner(self.0) else { return };
        let mut body = body.into_inner();
        let all = async {
            let mut left = BYTES;
            while !body.is_end_stream() && left > 0 {
                let Some(Ok(frame)) = body.frame().await else { return };
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        // A client that sends on and on sees the connection end.
        let _ = tokio::time::timeout(TIME, all).await;
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
