//! A log as a stream of pieces.

use bytes::Bytes;
use futures::io::AsyncReadExt;
use futures::{AsyncBufRead, StreamExt, stream};
use stockade_core::BackendError;
use stockade_core::backend::LogStream;

/// How much is held of a log at once.
const PIECE: usize = 16 * 1024;

/// Reads piece by piece, as fast as they are taken.
pub(crate) fn pieces(reader: impl AsyncBufRead + Send + 'static) -> LogStream {
    let read = |mut reader: std::pin::Pin<Box<dyn AsyncBufRead + Send>>| async move {
        let mut piece = vec![0; PIECE];
        match reader.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), reader))
            }
            Err(error) => {
                let message = format!("the log broke off: {error}");
                Some((Err(BackendError::Unreachable { message, source: Some(error.into()) }), reader))
            }
        }
    };
    // An error ends the stream: reading on after one would give it again and again.
    let until_error = stream::unfold(Some(Box::pin(reader) as _), move |state| async move {
        let (item, reader) = read(state?).await?;
        let next = item.is_ok().then_some(reader);
        Some((item, next))
    });
    until_error.boxed()
}
