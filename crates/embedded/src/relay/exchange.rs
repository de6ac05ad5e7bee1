//! Whether a caller waits for an answer of which nothing has come: then it can be told what became of it.

use std::sync::atomic::{AtomicU8, Ordering};

/// How the answer to an upgrade to another protocol begins.
const UPGRADED: &[u8] = b"HTTP/1.1 101";

/// Nobody waits: nothing was asked, or an answer has begun.
const CALM: u8 = 0;
/// Something was asked and nothing answered.
const ASKED: u8 = 1;
/// What is spoken now is not HTTP any more.
const OTHER: u8 = 2;

/// What was said on one connection last. It is a caller's word and a sandbox's: both may lie, to themselves.
#[derive(Debug, Default)]
pub(super) struct Exchange(AtomicU8);

impl Exchange {
    /// Bytes of the caller are about to be passed on.
    pub(super) fn asked(&self) {
        let _ = self.0.compare_exchange(CALM, ASKED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// These bytes of the sandbox are about to be passed on.
    pub(super) fn answered(&self, bytes: &[u8]) {
        if self.0.load(Ordering::Relaxed) == ASKED {
            let now = if bytes.starts_with(UPGRADED) { OTHER } else { CALM };
            self.0.store(now, Ordering::Relaxed);
        }
    }

    /// Whether a caller waits for an answer of which nothing has come.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_owed_from_the_request_to_its_first_byte() {
        let exchange = Exchange::default();
        assert!(!exchange.is_open(), "nobody asked");
        for _ in 0..2 {
            exchange.asked();
            exchange.asked();
            assert!(exchange.is_open());
            exchange.answered(b"HTTP/1.1 200 OK\r\n");
            assert!(!exchange.is_open());
            exchange.answered(b"more of it");
            assert!(!exchange.is_open());
        }
    }

    #[test]
    fn another_protocol_gets_no_answer_of_http() {
        let exchange = Exchange::default();
        exchange.asked();
        exchange.answered(b"HTTP/1.1 101 Switching Protocols\r\n");
        exchange.asked();
        assert!(!exchange.is_open());
    }
}
