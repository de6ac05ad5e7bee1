//! A command whose output nobody may lose: it waits for its reader, as it would for the reader of a pipe.
//!
//! The reader says how far it has read by the offsets it asks from. What lies behind is bounded, and beyond the bound the
//! command's pipes are not read, so that its writes block. A reader that is gone must not leave it blocked for ever:
//! when no request for its output is under way for [`ALONE`], or the last one was cut and none follows within [`CUT`], the
//! command is ended as by the loss of a terminal.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a command may be without a reader. Requests follow one another within milliseconds.
const ALONE: Duration = Duration::from_secs(15);
/// How long after a request whose connection broke: that is how the end of a reader that was killed looks from here.
const CUT: Duration = Duration::from_millis(300);
/// The most bytes of one stream that wait for the reader.
pub(super) const UNREAD: usize = 1024 * 1024;

pub(super) struct Backpressure(watch::Sender<Reader>);

/// What is known of whoever reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    /// Up to where it has read.
    pub(super) stdout: u64,
    pub(super) stderr: u64,
    /// Its requests under way.
    requests: usize,
    /// When the last of them ended.
    alone_since: Instant,
    /// It ended without an answer.
    was_cut: bool,
}

/// A request under way; dropping it, as a broken connection does, is its end.
pub(crate) struct Attention<'a> {
    reading: &'a Backpressure,
    is_answered: bool,
}

impl Attention<'_> {
    /// Ends it with an answer.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Backpressure {
    pub(super) fn new() -> Self {
        let alone_since = Instant::now();
        let reader = Reader { stdout: 0, stderr: 0, requests: 0, alone_since, was_cut: false };
        Self(watch::Sender::new(reader))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Reader> {
        self.0.subscribe()
    }

    /// The reader asks for what comes after these offsets. It never goes back.
    pub(super) fn read_to(&self, stdout: u64, stderr: u64) {
        self.0.send_modify(|reader| {
            reader.stdout = reader.stdout.max(stdout);
            reader.stderr = reader.stderr.max(stderr);
        });
    }

    pub(super) fn attention(&self) -> Attention<'_> {
        self.0.send_modify(|reader| reader.requests += 1);
        Attention { reading: self, is_answered: false }
    }

    /// Waits until there has been no reader for too long.
    pub(super) async fn abandoned(&self) {
        let mut reader = self.0.subscribe();
        loop {
            let Reader { requests, alone_since, was_cut, .. } = *reader.borrow_and_update();
            let limit = if was_cut { CUT } else { ALONE };
            let over = async {
                match requests {
                    0 => tokio::time::sleep_until(alone_since + limit).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender is ours and lives.
                _ = reader.changed() => {}
            }
        }
    }
}

impl Drop for Attention<'_> {
    fn drop(&mut self) {
        self.reading.0.send_modify(|reader| {
            reader.requests = reader.requests.saturating_sub(1);
            reader.alone_since = Instant::now();
            reader.was_cut = !self.is_answered;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_asks_for_nothing_any_more_is_gone() {
        let reading = Backpressure::new();
        let began = Instant::now();
        reading.abandoned().await;
        assert_eq!(began.elapsed().as_secs(), ALONE.as_secs());
        let attention = reading.attention();
        let long = tokio::time::timeout(ALONE * 10, reading.abandoned()).await;
        assert!(long.is_err(), "a request is under way");
        attention.answered();
        let left = Instant::now();
        reading.abandoned().await;
        assert_eq!(left.elapsed().as_secs(), ALONE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_whose_last_request_was_cut_is_soon_gone() {
        let reading = Backpressure::new();
        let (first, second) = (reading.attention(), reading.attention());
        drop(first);
        let long = tokio::time::timeout(ALONE * 10, reading.abandoned()).await;
        assert!(long.is_err(), "another request is under way");
        drop(second);
        let left = Instant::now();
        reading.abandoned().await;
        assert!(left.elapsed() >= CUT && left.elapsed() < 2 * CUT, "{:?}", left.elapsed());
        drop(reading.attention());
        reading.attention().answered();
        assert!(tokio::time::timeout(2 * CUT, reading.abandoned()).await.is_err(), "it has come back");
    }

    #[test]
    fn a_reader_never_goes_back() {
        let reading = Backpressure::new();
        reading.read_to(10, 3);
        reading.read_to(4, 5);
        let reader = *reading.subscribe().borrow();
        assert_eq!((reader.stdout, reader.stderr), (10, 5));
    }
}
