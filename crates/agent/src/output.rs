//! Bounded memory for the output of commands.
//!
//! One stream keeps its first [`HEAD`] bytes and a ring of the last [`TAIL`]; what lies between is
//! counted and dropped. All streams of the agent together take at most the bytes of one [`Budget`]:
//! when it is used up, rings stop growing and turn over earlier.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::text::{incomplete_tail, skip_partial_head};

/// Bytes kept from the beginning of a stream.
pub(crate) const HEAD: usize = 256 * 1024;
/// Bytes kept from the end of a stream.
pub(crate) const TAIL: usize = 2 * 1024 * 1024;
/// Bytes every stream may keep of its end even when the budget is used up.
const LEAST: usize = 16 * 1024;
/// Granularity in which a ring takes memory from the budget.
const STEP: usize = 16 * 1024;

/// Bytes that all streams together may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// One stream of output with byte offsets that count from its beginning.
#[derive(Debug)]
pub(crate) struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    held: usize,
    budget: Arc<Budget>,
}

/// What was read at an offset: text, or bytes as they were written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<T> {
    pub(crate) content: T,
    /// Where the next read goes on.
    pub(crate) next: u64,
}

impl Output {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), total: 0, held: 0, budget: Arc::clone(budget) }
    }

    /// Bytes written since the beginning, kept or not.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.head.len() < HEAD && self.tail.is_empty() {
            let fits = self.reserve(self.head.len(), bytes.len().min(HEAD - self.head.len()));
            self.head.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
        }
        if bytes.is_empty() {
            return;
        }
        let used = self.head.len() + self.tail.len();
        let room = self.reserve(used, bytes.len().min(TAIL.saturating_sub(self.tail.len())));
        let capacity = (self.tail.len() + room).clamp(LEAST, TAIL);
        let kept = &bytes[bytes.len() - bytes.len().min(capacity)..];
        let surplus = (self.tail.len() + kept.len()).saturating_sub(capacity);
        self.tail.drain(..surplus);
        self.tail.extend(kept);
    }

    /// How many more bytes, at most `wanted`, may come so that none from `offset` on is dropped, and at most `unread`
    /// of them are kept. Takes the memory for them.
    pub(crate) fn room_after(&mut self, offset: u64, wanted: usize, unread: usize) -> usize {
        let waiting = usize::try_from(self.total.saturating_sub(offset)).unwrap_or(usize::MAX);
        let used = self.head.len() + self.tail.len();
        let more = self.reserve(used, wanted.min(TAIL.saturating_sub(self.tail.len())));
        // The beginning stays; of the end, what turns over has to be read by then.
        let ring = (self.tail.len() + more).clamp(LEAST, TAIL);
        let room = ring.saturating_sub(waiting.min(self.tail.len()));
        room.min(unread.saturating_sub(waiting)).min(wanted)
    }

    /// How many of `wanted` more bytes than `used` may be held, after asking the budget for what is missing.
    fn reserve(&mut self, used: usize, wanted: usize) -> usize {
        while used + wanted > self.held {
            if !self.budget.take(STEP) {
                return self.held.saturating_sub(used);
            }
            self.held += STEP;
        }
        wanted
    }

    /// Gives all memory back; the totals stay.
    pub(crate) fn release(&mut self) {
        self.head = Vec::new();
        self.tail = VecDeque::new();
        self.budget.give_back(self.held);
        self.held = 0;
    }

    fn omitted(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// Everything that is kept, with a line in the middle that says how much is not.
    pub(crate) fn text(&self) -> String {
        let (front, back) = self.tail.as_slices();
        let omitted = self.omitted();
        if omitted == 0 {
            return String::from_utf8_lossy(&[&self.head, front, back].concat()).into_owned();
        }
        let head = &self.head[..self.head.len() - incomplete_tail(&self.head)];
        let tail = [front, back].concat();
        format!("{}{}{}", lossy(head), omission(omitted), lossy(skip_partial_head(&tail)))
    }

    /// Text from `offset` on. A character whose rest has not arrived is left for the next read
    /// unless the stream is `complete`. An offset whose bytes were dropped goes on at the oldest kept.
    pub(crate) fn read_from(&self, offset: u64, complete: bool) -> Piece<String> {
        let Piece { content: mut bytes, next } = self.bytes_from(offset);
        let held_back = if complete { 0 } else { incomplete_tail(&bytes) };
        bytes.truncate(bytes.len() - held_back);
        Piece { content: String::from_utf8_lossy(&bytes).into_owned(), next: next - held_back as u64 }
    }

    /// Text of at most about `limit` bytes from `offset` on and before `end`, with a line that says how many bytes
    /// are not kept where some are missing. A character whose rest has not arrived is left for the next piece
    /// unless the stream is `complete`.
    pub(crate) fn piece_from(
        &self,
        offset: u64,
        end: Option<u64>,
        limit: usize,
        complete: bool,
    ) -> Piece<String> {
        let end = end.unwrap_or(self.total).min(self.total);
        let offset = offset.min(end);
        let tail_start = self.total - self.tail.len() as u64;
        let length = |from: u64| usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let head_from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.head.len());
        let wanted = limit.min(length(offset));
        bytes.extend_from_slice(&self.head[head_from..self.head.len().min(head_from.saturating_add(wanted))]);
        let from = offset + bytes.len() as u64;
        if bytes.len() == wanted || from >= tail_start {
            let start =
                usize::try_from(from.saturating_sub(tail_start)).unwrap_or(usize::MAX).min(self.tail.len());
            let stop = start.saturating_add(wanted - bytes.len()).min(self.tail.len());
            bytes.extend(self.tail.range(start..stop));
            let next = offset + bytes.len() as u64;
            let held_back = if complete && next == end { 0 } else { incomplete_tail(&bytes) };
            bytes.truncate(bytes.len() - held_back);
            return Piece { content: lossy(&bytes), next: next - held_back as u64 };
        }
        // What comes next was dropped: the piece ends with the line that says so.
        let broken = incomplete_tail(&bytes);
        let rest: Vec<u8> = self.tail.iter().take(3).copied().collect();
        let broken_head = (rest.len() - skip_partial_head(&rest).len()) as u64;
        let next = (tail_start + broken_head).min(end);
        let omitted = next - from;
        let mut content = lossy(&bytes[..bytes.len() - broken]);
        content.push_str(&omission(omitted));
        Piece { content, next }
    }

    /// As [`Self::read_from`], with the bytes as they were written.
    pub(crate) fn bytes_from(&self, offset: u64) -> Piece<Vec<u8>> {
        let offset = offset.min(self.total);
        let tail_start = self.total - self.tail.len() as u64;
        let mut bytes = Vec::new();
        let head_from = usize::try_from(offset).unwrap_or(usize::MAX);
        if head_from < self.head.len() {
            bytes.extend_from_slice(&self.head[head_from..]);
        }
        let tail_from = usize::try_from(offset.saturating_sub(tail_start)).unwrap_or(usize::MAX);
        let (front, back) = self.tail.as_slices();
        if tail_from < front.len() {
            bytes.extend_from_slice(&front[tail_from..]);
            bytes.extend_from_slice(back);
        } else {
            bytes.extend_from_slice(&back[(tail_from - front.len()).min(back.len())..]);
        }
        Piece { content: bytes, next: self.total }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn omission(bytes: u64) -> String {
    format!("\n[... {bytes} bytes omitted ...]\n")
}

impl Drop for Output {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn megabytes_keep_head_and_tail() {
        let mut output = Output::new(&Budget::new(64 << 20));
        for number in 0..1_000_000u32 {
            output.append(format!("{number:09}\n").as_bytes());
        }
        let text = output.text();
        assert!(text.starts_with("000000000\n000000001\n"));
        assert!(text.ends_with("000999999\n"));
        assert!(text.contains("bytes omitted"));
        assert!(text.len() <= HEAD + TAIL + 60);
        assert_eq!(output.total(), 10_000_000);
    }

    #[test]
    fn an_empty_budget_still_keeps_the_newest() {
        let budget = Budget::new(2 * STEP);
        let mut output = Output::new(&budget);
        output.append(&vec![b'a'; 3 * STEP]);
        output.append(b"end");
        assert!(output.head.len() + output.tail.len() <= 2 * STEP + LEAST);
        assert!(output.text().ends_with("end"));
        drop(output);
        assert_eq!(budget.left.load(Ordering::Relaxed), 2 * STEP);
    }

    #[test]
    fn pieces_tell_of_what_was_dropped_once() {
        let mut output = Output::new(&Budget::new(64 << 20));
        output.append("\u{e4}".repeat((HEAD + TAIL) / 2 + 1000).as_bytes());
        let (mut offset, mut joined) = (0, String::new());
        while offset < output.total() {
            let piece = output.piece_from(offset, None, 10_001, true);
            assert!(piece.next > offset);
            joined.push_str(&piece.content);
            offset = piece.next;
        }
        assert_eq!(joined, output.text());
        let end = output.total() - 3;
        let last = output.piece_from(end - 3, Some(end), 100, false);
        assert_eq!((last.content.as_str(), last.next), ("\u{e4}", end - 1));
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(text in "\\PC{0,60}", limit in 4usize..9, cut in 0usize..200) {
            let mut output = Output::new(&Budget::new(1 << 20));
            let cut = cut.min(text.len());
            let (mut offset, mut joined) = (0, String::new());
            for (bytes, complete) in [(&text.as_bytes()[..cut], false), (&text.as_bytes()[cut..], true)] {
                output.append(bytes);
                loop {
                    let piece = output.piece_from(offset, None, limit, complete);
                    if piece.next == offset {
                        break;
                    }
                    joined.push_str(&piece.content);
                    offset = piece.next;
                }
            }
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn what_has_room_is_kept_until_it_is_read(
            steps in proptest::collection::vec((1usize..100_000, 0usize..150_000), 1..80),
            budget in 0usize..(1 << 20),
        ) {
            let letter = |at: usize| u8::try_from(at % 251).unwrap();
            let mut output = Output::new(&Budget::new(budget));
            let (mut written, mut read) = (0usize, 0usize);
            for (wanted, taken) in steps {
                let room = output.room_after(read as u64, wanted, 300_000);
                prop_assert!(room > 0 || written > read, "whoever has read all can always read on");
                let bytes: Vec<u8> = (written..written + room).map(letter).collect();
                output.append(&bytes);
                written += room;
                let kept = output.bytes_from(read as u64).content;
                let expect: Vec<u8> = (read..written).map(letter).collect();
                prop_assert!(kept == expect);
                read = (read + taken).min(written);
            }
        }

        #[test]
        fn reads_in_pieces_join_to_the_whole(text in "\\PC{0,60}", sizes in proptest::collection::vec(1usize..7, 0..60)) {
            let mut output = Output::new(&Budget::new(1 << 20));
            let (mut at, mut offset, mut joined) = (0, 0, String::new());
            for size in sizes {
                let end = (at + size).min(text.len());
                output.append(&text.as_bytes()[at..end]);
                at = end;
                let piece = output.read_from(offset, false);
                joined.push_str(&piece.content);
                offset = piece.next;
            }
            output.append(&text.as_bytes()[at..]);
            joined.push_str(&output.read_from(offset, true).content);
            prop_assert_eq!(&joined, &text);
            prop_assert_eq!(output.text(), text);
        }
    }
}
