//! What the code's subprocesses print: it comes over pipes, beside what the driver answers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;

use crate::output::{Budget, Output};
use crate::shell::terminal::watch_descriptor;

const READ: usize = 8 * 1024;
/// What a pipe can hold. A background process that never stops printing cannot hold up the answer.
const LAST_READ: usize = 1024 * 1024;

/// Standard output and standard error, in this order.
pub(super) struct Stray {
    ends: [AsyncFd<OwnedFd>; 2],
    texts: Mutex<[Output; 2]>,
}

impl Stray {
    /// Reads the ends, which do not block, until nobody writes to them any more.
    pub(super) fn read(stdout: OwnedFd, stderr: OwnedFd, budget: &Arc<Budget>) -> io::Result<Arc<Self>> {
        let ends = [watch_descriptor(stdout)?, watch_descriptor(stderr)?];
        let texts = Mutex::new([Output::new(budget), Output::new(budget)]);
        let stray = Arc::new(Self { ends, texts });
        for index in 0..2 {
            tokio::spawn(Arc::clone(&stray).collect(index));
        }
        Ok(stray)
    }

    /// How much there was so far.
    pub(super) fn totals(&self) -> [u64; 2] {
        self.texts.lock().each_ref().map(Output::total)
    }

    /// What there was since, with what was printed before this call and not read yet: the driver's
    /// answer may overtake it.
    pub(super) fn since(&self, totals: [u64; 2]) -> [String; 2] {
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
        [0, 1].map(|index| texts[index].read_from(totals[index], true).content)
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
        texts[index].append(&buffer[..length]);
        Ok(length)
    }
}
