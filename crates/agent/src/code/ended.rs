//! Sessions that were ended without their callers' doing, so that these can be told.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::registry::MAX_SESSIONS;

/// How many are remembered.
const MOST: usize = 256;

/// Why a session was ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    /// Another one needed its place.
    Room,
    /// Nobody used it for this long.
    Idle(Duration),
}

#[derive(Debug, Default)]
pub(super) struct Ended {
    known: VecDeque<(String, Why, SystemTime)>,
    to_make_room: u64,
    after_idling: u64,
}

impl Ended {
    pub(super) fn note(&mut self, id: &str, why: Why) {
        match why {
            Why::Room => self.to_make_room += 1,
            Why::Idle(_) => self.after_idling += 1,
        }
        if self.known.len() >= MOST {
            self.known.pop_front();
        }
        self.known.push_back((id.to_owned(), why, SystemTime::now()));
    }

    /// What became of the session of that id, as a sentence.
    pub(super) fn why(&self, id: &str) -> Option<String> {
        let (_, why, at) = self.known.iter().rev().find(|(known, ..)| known == id)?;
        let ago = SystemTime::now().duration_since(*at).unwrap_or_default().as_secs();
        Some(match why {
            Why::Room => format!(
                "the session was ended {ago} s ago to make room for another ({MAX_SESSIONS} are kept, idle ones give \
                 way); its state is lost"
            ),
            Why::Idle(idle) => format!(
                "the session was ended {ago} s ago, after {} s in which it was not used; its state is lost",
                idle.as_secs()
            ),
        })
    }

    /// As [`Self::why`], once: there is a session of that id again.
    pub(super) fn take(&mut self, id: &str) -> Option<String> {
        let why = self.why(id)?;
        self.known.retain(|(known, ..)| known != id);
        Some(why)
    }

    pub(super) fn to_make_room(&self) -> u64 {
        self.to_make_room
    }

    pub(super) fn after_idling(&self) -> u64 {
        self.after_idling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_session_is_told_once_it_is_asked_for_again() {
        let mut ended = Ended::default();
        ended.note("a", Why::Room);
        ended.note("b", Why::Idle(Duration::from_secs(1800)));
        assert!(ended.why("a").is_some_and(|why| why.contains("to make room")));
        assert!(ended.take("b").is_some_and(|why| why.contains("after 1800 s")));
        assert_eq!((ended.take("b"), ended.why("c")), (None, None));
        assert_eq!((ended.to_make_room(), ended.after_idling()), (1, 1));
    }

    #[test]
    fn the_newest_are_remembered() {
        let mut ended = Ended::default();
        for number in 0..=MOST {
            ended.note(&number.to_string(), Why::Room);
        }
        assert!(ended.why("0").is_none() && ended.why("1").is_some());
        assert_eq!(ended.to_make_room(), 257);
    }
}
