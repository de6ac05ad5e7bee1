//! Answers that come in pieces, as server-sent events: `output` as it comes, and last a `result`.
//!
//! Nothing is gathered for a reader: it is given the next piece of what is kept anyway when it has taken
//! the one before. One that is slow misses the middle of what it could not take, as a JSON answer would;
//! one that is gone is forgotten. What is followed never waits for either.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderMap, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// Most bytes of a stream of output in one event.
pub(crate) const PIECE: usize = 64 * 1024;
/// How often a comment tells proxies and readers that the connection is alive.
const PING: Duration = Duration::from_secs(15);

/// What there is to tell next.
pub(crate) enum Next {
    /// The data of an `output` event.
    Output(Value),
    /// The data of the `result` event: the envelope that a JSON answer would be.
    Result(String),
    /// Nothing until something changes, or until this time.
    Nothing(Option<Instant>),
}

/// Something that is told piece by piece.
pub(crate) trait Follow: Send + 'static {
    /// What there is now. Called again after every piece.
    fn next(&mut self) -> Next;
}

/// What was told already when the caller asked.
pub(crate) struct Told(pub(crate) String);

impl Follow for Told {
    fn next(&mut self) -> Next {
        Next::Result(std::mem::take(&mut self.0))
    }
}

/// Whether the caller asks for events, and would not take JSON as well.
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    let asks = |kind: &str| {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|range| {
            let range = range.split(';').next().unwrap_or("");
            range.trim().eq_ignore_ascii_case(kind)
        })
    };
    asks("text/event-stream") && !asks("application/json")
}

/// The answer that tells all of `follow`, which looks again whenever `changed` does.
pub(crate) fn answer<F: Follow>(follow: F, changed: watch::Receiver<u64>) -> Response {
    let events = stream::unfold(Some((follow, changed)), |state| async move {
        let (mut follow, mut changed) = state?;
        loop {
            match follow.next() {
                Next::Output(data) => {
                    return Some((named("output", data.to_string()), Some((follow, changed))));
                }
                Next::Result(envelope) => return Some((named("result", envelope), None)),
                Next::Nothing(Some(deadline)) => {
                    let _ = tokio::time::timeout_at(deadline, changed.changed()).await;
                }
                Next::Nothing(None) => changed.changed().await.ok()?,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(PING).text("ping")).into_response()
}

fn named(name: &str, data: String) -> Result<Event, Infallible> {
    Ok(Event::default().event(name).data(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn events_are_for_those_who_ask_for_them_alone() {
        for (accept, expect) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; q=0.9, */*", true),
            ("*/*", false),
            ("application/json, text/event-stream", false),
            ("text/html", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wanted(&headers), expect, "{accept}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }
}
