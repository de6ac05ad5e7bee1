//! Sessions that were ended without anybody asking for it: who asks for one later is told why it is not there.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::http::ApiError;

/// How many are remembered.
const REMEMBERED: usize = 1024;
/// Characters of an id that are repeated.
const SHOWN: usize = 128;

/// Why a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nobody had used it for as long as sessions are kept.
    Unused,
    /// Another took its place.
    Room,
}

/// The sessions of one kind that were ended last.
#[derive(Default)]
pub(crate) struct Departed(Mutex<VecDeque<Departure>>);

struct Departure {
    id: String,
    idle: Duration,
    reason: Reason,
}

impl Departed {
    /// Remembers that the session `id`, last used at that time, was ended now.
    pub(crate) fn remember(&self, id: &str, last_used: SystemTime, reason: Reason) {
        let idle = SystemTime::now().duration_since(last_used).unwrap_or_default();
        let mut departed = self.0.lock();
        departed.retain(|other| other.id != id);
        if departed.len() == REMEMBERED {
            departed.pop_front();
        }
        departed.push_back(Departure { id: id.to_owned(), idle, reason });
    }

    /// The answer to a call that names a session that is not there.
    pub(crate) fn not_found(&self, id: &str) -> ApiError {
        let shown: String = id.chars().take(SHOWN).collect();
        let departed = self.0.lock();
        let Some(departure) = departed.iter().find(|departure| departure.id == id) else {
            return ApiError::not_found(format!("Session not found: {shown}"));
        };
        let why = match departure.reason {
            Reason::Unused => "because nobody used it",
            Reason::Room => "to make room for another",
        };
        let idle = departure.idle.as_secs();
        let message = format!("Session not found: {shown}; it was ended after {idle} s idle, {why}");
        ApiError::not_found(message).with_hint("what it left running goes on; create a session to go on in")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(departed: &Departed, id: &str, expect: &str) {
        assert_eq!(departed.not_found(id).message(), expect);
    }

    #[test]
    fn who_asks_for_an_ended_session_is_told_why_it_ended() {
        let departed = Departed::default();
        check(&departed, "a", "Session not found: a");
        departed.remember("a", SystemTime::now() - Duration::from_secs(630), Reason::Unused);
        check(&departed, "a", "Session not found: a; it was ended after 630 s idle, because nobody used it");
        departed.remember("a", SystemTime::now() - Duration::from_secs(7), Reason::Room);
        check(&departed, "a", "Session not found: a; it was ended after 7 s idle, to make room for another");
        // A clock that was set back is no reason to fail.
        departed.remember("b", SystemTime::now() + Duration::from_secs(90), Reason::Room);
        check(&departed, "b", "Session not found: b; it was ended after 0 s idle, to make room for another");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let departed = Departed::default();
        for number in 0..=REMEMBERED {
            departed.remember(&number.to_string(), SystemTime::now(), Reason::Room);
        }
        check(&departed, "0", "Session not found: 0");
        assert!(departed.not_found("1").message().contains("to make room"));
        assert_eq!(departed.0.lock().len(), REMEMBERED);
    }
}
