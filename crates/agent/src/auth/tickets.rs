//! Tickets: what stands for a token once, where no header can be sent (a WebSocket of a browser, a link).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::digest::{Digest, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// Tickets that are valid at once. Beyond that the oldest are forgotten: who makes that many has a token.
const MOST: usize = 1024;
/// Bytes of chance in a ticket.
const RANDOM: usize = 32;

/// The tickets that were given out and not used yet, oldest first. Only their hashes are kept.
pub(super) struct Tickets {
    life: Duration,
    valid: Mutex<Vec<(Digest, Instant)>>,
}

impl Tickets {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, valid: Mutex::default() }
    }

    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// A new ticket. `None`: the kernel gives no random bytes.
    pub(super) fn issue(&self, now: Instant) -> Option<String> {
        let mut random = [0; RANDOM];
        SystemRandom::new().fill(&mut random).ok()?;
        let ticket = URL_SAFE_NO_PAD.encode(random);
        let mut valid = self.valid.lock();
        valid.retain(|(_, until)| *until > now);
        if valid.len() == MOST {
            valid.remove(0);
        }
        valid.push((digest(&SHA256, ticket.as_bytes()), now + self.life));
        Some(ticket)
    }

    /// Whether `ticket` is valid; it is not any more afterwards.
    pub(super) fn redeem(&self, ticket: &str, now: Instant) -> bool {
        let asked = digest(&SHA256, ticket.as_bytes());
        let mut valid = self.valid.lock();
        valid.retain(|(_, until)| *until > now);
        let same = |(known, _): &(Digest, Instant)| bool::from(known.as_ref().ct_eq(asked.as_ref()));
        // All are compared, so that the time tells nothing of which.
        let found = valid
            .iter()
            .enumerate()
            .fold(None, |found, (place, entry)| if same(entry) { Some(place) } else { found });
        found.map(|place| valid.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_its_time() {
        let tickets = Tickets::new(Duration::from_secs(30));
        let now = Instant::now();
        let (first, second) = (tickets.issue(now).unwrap(), tickets.issue(now).unwrap());
        assert_ne!(first, second);
        assert!(!tickets.redeem("", now) && !tickets.redeem("x", now));
        assert!(tickets.redeem(&first, now));
        assert!(!tickets.redeem(&first, now));
        assert!(!tickets.redeem(&second, now + Duration::from_secs(30)));
    }

    #[test]
    fn the_number_of_tickets_is_bounded() {
        let tickets = Tickets::new(Duration::from_secs(30));
        let now = Instant::now();
        let first = tickets.issue(now).unwrap();
        let others: Vec<_> = (0..MOST).map(|_| tickets.issue(now).unwrap()).collect();
        assert!(!tickets.redeem(&first, now));
        assert!(tickets.redeem(&others[0], now));
        assert_eq!(tickets.valid.lock().len(), MOST - 1);
    }
}
