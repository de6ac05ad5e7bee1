//! Takes what a terminal program wrote and leaves the text: no escape sequences, no carriage
//! returns, no control characters other than tab and line feed.
//!
//! It works on pieces as they arrive: a sequence may begin in one and end in the next. A sequence
//! that never ends is given up after [`LONGEST_SEQUENCE`] bytes, so that a stray introducer in
//! binary output cannot swallow the rest.

const LONGEST_SEQUENCE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After a carriage return: what follows decides whether it was a line end.
    Return,
    Escape,
    /// `ESC (` and its kin: one more byte.
    EscapeIntermediate,
    /// `ESC [`: parameters up to a final byte.
    Control,
    /// `ESC ]`, `P`, `X`, `^`, `_`: a string up to BEL or `ESC \`.
    Text8Bit,
    StringEscape,
}

/// The state between two pieces of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Cleaner {
    state: State,
    length: usize,
}

impl Cleaner {
    pub(crate) fn new() -> Self {
        Self { state: State::Text, length: 0 }
    }

    /// Appends the text of `input` to `out`.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while at < input.len() {
            if self.state == State::Text {
                let plain = input[at..].iter().position(|byte| is_special(*byte)).unwrap_or(input.len() - at);
                out.extend_from_slice(&input[at..at + plain]);
                at += plain;
                if at == input.len() {
                    return;
                }
            }
            self.step(input[at], out);
            at += 1;
        }
    }

    /// The stream has ended: a carriage return that waits for its line feed is a line end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Return {
            out.push(b'\n');
        }
        self.state = State::Text;
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.length += 1;
        if self.length > LONGEST_SEQUENCE && self.state != State::Text {
            self.enter(State::Text);
        }
        match self.state {
            State::Text => self.text(byte, out),
            State::Return => match byte {
                b'\r' => {}
                b'\n' => {
                    out.push(b'\n');
                    self.enter(State::Text);
                }
                // Programs draw progress over one line with it. As a line of its own nothing is lost.
                _ => {
                    out.push(b'\n');
                    self.enter(State::Text);
                    self.text(byte, out);
                }
            },
            State::Escape => match byte {
                b'[' => self.enter(State::Control),
                b']' | b'P' | b'X' | b'^' | b'_' => self.enter(State::Text8Bit),
                0x20..=0x2F => self.enter(State::EscapeIntermediate),
                0x1B => self.enter(State::Escape),
                0x30..=0x7E => self.enter(State::Text),
                _ => self.abandon(byte, out),
            },
            State::EscapeIntermediate => match byte {
                0x20..=0x2F => {}
                0x30..=0x7E => self.enter(State::Text),
                _ => self.abandon(byte, out),
            },
            State::Control => match byte {
                0x20..=0x3F => {}
                0x40..=0x7E => self.enter(State::Text),
                _ => self.abandon(byte, out),
            },
            State::Text8Bit => match byte {
                0x07 => self.enter(State::Text),
                0x1B => self.state = State::StringEscape,
                // A line feed has no place in such a string: it was binary output, not a sequence.
                b'\n' => self.abandon(byte, out),
                _ => {}
            },
            State::StringEscape => match byte {
                b'\\' => self.enter(State::Text),
                b'[' => self.enter(State::Control),
                _ => self.state = State::Text8Bit,
            },
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x1B => self.enter(State::Escape),
            b'\r' => self.enter(State::Return),
            b'\n' | b'\t' => out.push(byte),
            byte if is_special(byte) => {}
            byte => out.push(byte),
        }
    }

    fn abandon(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.enter(State::Text);
        self.text(byte, out);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.length = 0;
    }
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\n' && byte != b'\t') || byte == 0x7F
}

/// The text of one whole piece.
#[must_use]
pub fn clean(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut cleaner = Cleaner::new();
    cleaner.feed(input, &mut out);
    cleaner.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(input: &[u8], expect: &str) {
        assert_eq!(String::from_utf8_lossy(&clean(input)), expect);
    }

    #[test]
    fn sequences_vanish_and_text_stays() {
        check(b"plain\n", "plain\n");
        check(b"\x1b[1;31mred\x1b[0m\n", "red\n");
        check(b"\x1b]0;title\x07after", "after");
        check(b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link");
        check(b"\x1b(Btext\x1b=", "text");
        check(b"a\x00b\x07c\x08", "abc");
        check("h\u{e4}\u{df}\t\u{20ac}\n".as_bytes(), "häß\t€\n");
    }

    #[test]
    fn carriage_returns_become_line_ends() {
        check(b"a\r\nb\r\r\nc", "a\nb\nc");
        check(b"10%\r20%\r\n", "10%\n20%\n");
        check(b"end\r", "end\n");
    }

    #[test]
    fn stray_introducers_do_not_swallow_the_rest() {
        check(b"\x1b]never closed\nnext line", "\nnext line");
        check(b"\x1b[12\nnext", "\nnext");
        let long = [b"\x1bP".as_slice(), &[b'x'; 5000], b"\nend"].concat();
        assert!(String::from_utf8_lossy(&clean(&long)).ends_with("\nend"));
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let mut cleaner = Cleaner::new();
            let mut out = Vec::new();
            cleaner.feed(&bytes[..cut], &mut out);
            cleaner.feed(&bytes[cut..], &mut out);
            cleaner.finish(&mut out);
            prop_assert_eq!(&out, &clean(&bytes));
            prop_assert!(out.iter().all(|byte| !is_special(*byte)));
        }
    }
}
