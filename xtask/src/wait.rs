//! Waits for what has no event: another program's readiness.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How a wait ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The value that was waited for.
    Ready(T),
    /// The deadline passed; the text says what was missing at the last look.
    TimedOut(String),
}

/// Looks every `interval` until `look` gives a value, an error, or `deadline` has passed. `look`
/// answers `Ok(Err(reason))` while what it looks for is not there yet.
///
/// # Errors
/// Those of `look`: they end the wait at once.
pub fn until<T>(
    deadline: Duration,
    interval: Duration,
    mut look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<Outcome<T>> {
    let end = Instant::now() + deadline;
    loop {
        match look()? {
            Ok(value) => return Ok(Outcome::Ready(value)),
            Err(missing) if Instant::now() >= end => return Ok(Outcome::TimedOut(missing)),
            Err(_) => pause(interval),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at a program that has no event for its readiness; the caller's deadline bounds it"
)]
fn pause(interval: Duration) {
    std::thread::sleep(interval);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_ends_the_wait_with_the_last_reason() {
        let outcome =
            until::<()>(Duration::ZERO, Duration::ZERO, || Ok(Err("no socket".to_owned()))).unwrap();
        assert_eq!(outcome, Outcome::TimedOut("no socket".to_owned()));
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let hour = Duration::from_secs(3600);
        assert!(until::<()>(hour, hour, || anyhow::bail!("dead")).is_err());
    }
}
