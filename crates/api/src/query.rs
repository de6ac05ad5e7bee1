//! The parameters after the `?`.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{FieldError, InvalidRequest};
use crate::field::{self, Wrong};

/// The longest a caller may wait for a sandbox to become ready, and how long it waits when it does not
/// say: callers give up on a create after 30 s.
pub const MAX_WAIT: Duration = Duration::from_secs(25);
/// The most lines of a log one request may begin with.
pub const MAX_TAIL: i64 = 10_000;
/// How many lines of a log a request begins with when it does not say.
pub const DEFAULT_TAIL: u32 = 500;

/// `?wait=ready&timeout=25`: how long to wait for the sandbox to become ready; `None`: not at all.
///
/// # Errors
/// Every parameter that is wrong. Unknown ones are ignored.
pub fn decode_wait(pairs: &[(String, String)]) -> Result<Option<Duration>, InvalidRequest> {
    let mut reader = Reader { pairs, errors: Vec::new() };
    let wait = reader.read("wait", |word| match word {
        "ready" => Ok(()),
        _ => Err(Wrong::new("literal_error", "Input should be 'ready'").with(json!({"expected": "'ready'"}))),
    });
    let timeout = reader.read("timeout", |text| between(text, 1, MAX_WAIT.as_secs().cast_signed()));
    reader.finish(
        wait.map(|()| timeout.map_or(MAX_WAIT, |seconds| Duration::from_secs(seconds.unsigned_abs()))),
    )
}

/// Which part of a log is wanted: `?follow=true&tail=100&previous=true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// Keep sending what is written from now on.
    pub follow: bool,
    /// How many of the last lines to begin with.
    pub tail: u32,
    /// Of the process before the last restart.
    pub previous: bool,
}

impl fmt::Display for LogQuery {
    /// As it stands in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "follow={}&tail={}&previous={}", self.follow, self.tail, self.previous)
    }
}

/// The parameters of a log request.
///
/// # Errors
/// Every parameter that is wrong. Unknown ones are ignored.
pub fn decode_logs(pairs: &[(String, String)]) -> Result<LogQuery, InvalidRequest> {
    let mut reader = Reader { pairs, errors: Vec::new() };
    let boolean = |text: &str| field::boolean(&Value::from(text));
    let follow = reader.read("follow", boolean).unwrap_or(false);
    let tail = reader.read("tail", |text| between(text, 0, MAX_TAIL));
    let previous = reader.read("previous", boolean).unwrap_or(false);
    let tail = tail.and_then(|lines| u32::try_from(lines).ok()).unwrap_or(DEFAULT_TAIL);
    reader.finish(LogQuery { follow, tail, previous })
}

fn between(text: &str, least: i64, most: i64) -> Result<i64, Wrong> {
    match field::integer(&Value::from(text))? {
        small if small < least => {
            Err(Wrong::new("greater_than_equal", format!("Input should be greater than or equal to {least}"))
                .with(json!({ "ge": least })))
        }
        large if large > most => {
            Err(Wrong::new("less_than_equal", format!("Input should be less than or equal to {most}"))
                .with(json!({ "le": most })))
        }
        good => Ok(good),
    }
}

struct Reader<'a> {
    pairs: &'a [(String, String)],
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    /// The last of several equal names counts, as in a body.
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let (_, text) = self.pairs.iter().rev().find(|(other, _)| other == name)?;
        read(text)
            .map_err(|wrong| {
                let loc = vec!["query".into(), name.into()];
                self.errors.push(wrong.at(loc, &Value::from(text.as_str())));
            })
            .ok()
    }

    fn finish<T>(self, read: T) -> Result<T, InvalidRequest> {
        if self.errors.is_empty() { Ok(read) } else { Err(InvalidRequest::new(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn kinds<T>(result: Result<T, InvalidRequest>) -> Vec<String> {
        result.err().map_or(vec![], |invalid| invalid.detail.into_iter().map(|error| error.kind).collect())
    }

    #[test]
    fn waiting_has_a_bound() {
        let wait = |query: &[(&str, &str)]| decode_wait(&pairs(query));
        assert_eq!(wait(&[]).unwrap(), None);
        assert_eq!(wait(&[("wait", "ready")]).unwrap(), Some(MAX_WAIT));
        assert_eq!(wait(&[("wait", "ready"), ("timeout", "3")]).unwrap(), Some(Duration::from_secs(3)));
        assert_eq!(kinds(wait(&[("wait", "ready"), ("timeout", "26")])), ["less_than_equal"]);
        assert_eq!(
            kinds(wait(&[("wait", "running"), ("timeout", "0")])),
            ["literal_error", "greater_than_equal"]
        );
        assert_eq!(kinds(wait(&[("timeout", "soon")])), ["int_parsing"]);
    }

    #[test]
    fn a_log_has_a_bound() {
        let logs = |query: &[(&str, &str)]| decode_logs(&pairs(query));
        let plain = LogQuery { follow: false, tail: DEFAULT_TAIL, previous: false };
        assert_eq!(logs(&[("colour", "red")]).unwrap(), plain);
        let all = logs(&[("follow", "1"), ("tail", "0"), ("previous", "yes")]).unwrap();
        assert_eq!(all, LogQuery { follow: true, tail: 0, previous: true });
        assert_eq!(all.to_string(), "follow=true&tail=0&previous=true");
        assert_eq!(kinds(logs(&[("follow", ""), ("tail", "-1")])), ["bool_parsing", "greater_than_equal"]);
    }
}
