//! What the code's subprocesses and forked children print: it comes over pipes, beside what the driver answers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;

use crate::output::{Budget, HEAD, Output, TAIL};
use crate::shell::terminal::watch_descriptor;

const READ: usize = 8 * 1024;
/// What a pipe can hold. A background process that never stops printing cannot hold up the answer.
const LAST_READ: usize = 1024 * 1024;
/// Longer than what is kept of a stream: a piece ends early where some is missing.
const PIECE: usize = 2 * (HEAD + TAIL);

/// Standard output and standard error, in this order.
pub(super) struct Stray {
    ends: [AsyncFd<OwnedFd>; 2],
    texts: Mutex<[Output; 2]>,
    /// Nobody asks any more: what comes is dropped.
    discarded: AtomicBool,
}

impl Stray {
    /// Reads the ends, which do not block, until nobody writes to them any more.
    pub(super) fn read(stdout: OwnedFd, stderr: OwnedFd, budget: &Arc<Budget>) -> io::Result<Arc<Self>> {
        let ends = [watch_descriptor(stdout)?, watch_descriptor(stderr)?];
        let texts = Mutex::new([Output::new(budget), Output::new(budget)]);
        let stray = Arc::new(Self { ends, texts, discarded: AtomicBool::new(false) });
        for index in 0..2 {
            tokio::spawn(Arc::clone(&stray).collect(index));
        }
        Ok(stray)
    }

    /// What there was since the last time, which `told` says, and what lies in the pipes now: the driver's answer may
    /// overtake it.
    pub(super) fn since(&self, told: &mut [u64; 2]) -> [String; 2] {
        for index in 0..2 {
            let mut left = LAST_READ;
            while left > 0 {
                match self.read_now(index) {
                    Ok(length) if length > 0 => left = left.saturating_sub(length),
                    _ => break,
                }
            }
        }
        let texts = self.texts.lock();
        [0, 1].map(|index| {
            let (mut text, end) = (String::new(), texts[index].total());
            while told[index] < end {
                let piece = texts[index].piece_from(told[index], Some(end), PIECE, true);
                text.push_str(&piece.content);
                told[index] = piece.next;
            }
            text
        })
    }

    /// Gives all memory back, and keeps nothing of what comes. Whoever still writes is not held up.
    pub(super) fn discard(&self) {
        let mut texts = self.texts.lock();
        self.discarded.store(true, Ordering::Relaxed);
        texts.iter_mut().for_each(Output::release);
    }

    async fn collect(self: Arc<Self>, index: usize) {
        loop {
            let Ok(mut ready) = self.ends[index].readable().await else { return };
            if let Ok(Ok(0) | Err(_)) = ready.try_io(|_| self.read_now(index)) {
                return;
            }
        }
    }

    fn read_now(&self, index: usize) -> io::Result<usize> {
        let mut buffer = [0; READ];
        // Under the lock, so that no piece overtakes the one before.
        let mut texts = self.texts.lock();
        let length = rustix::io::read(&self.ends[index], &mut buffer)?;
        if !self.discarded.load(Ordering::Relaxed) {
            texts[index].append(&buffer[..length]);
        }
        Ok(length)
    }
}
