//! Text of others, fit for a terminal. What a sandbox says may be meant for whoever reads it: sequences that move the
//! cursor, and characters that show a text in another order than it has, or not at all.

use std::fmt::Write as _;
use std::io::{self, Write};

/// Characters that are there to change how others are shown, or are not shown at all (Unicode's `Cf`,
/// `Default_Ignorable_Code_Point`, and its separators of lines and paragraphs), from the first to the last of each range.
const UNSEEN: [(char, char); 28] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
    // Private use: a font may show anything.
    ('\u{e000}', '\u{f8ff}'),
    ('\u{f0000}', '\u{ffffd}'),
    ('\u{100000}', '\u{10fffd}'),
];

/// Whether a character is shown as itself and changes nothing else.
fn is_seen(c: char) -> bool {
    !c.is_control() && !UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// The text as one line of characters that are seen; a blank stands for each of the others.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_seen(c) { c } else { ' ' }).collect()
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if is_seen(c) || c == '\n' { c } else { ' ' }).collect()
}

/// JSON of several lines, in which what is not seen stands as `\\uXXXX`.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_seen(c) || c == '\n' {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// Bytes of a text that comes in pieces, for a terminal: lines and tabs stay, everything else that is not seen becomes a
/// blank, and what is no UTF-8 the sign for that.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
}

impl Pieces {
    /// Writes what can be written by now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, out: &mut dyn Write, piece: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(piece);
        let whole = match self.rest.utf8_chunks().last() {
            // Less than a character at the end may become one.
            Some(last) if is_begun(last.invalid()) => self.rest.len() - last.invalid().len(),
            _ => self.rest.len(),
        };
        let text = String::from_utf8_lossy(&self.rest[..whole]);
        let keep = |c: char| if is_seen(c) || matches!(c, '\n' | '\t') { c } else { ' ' };
        // An end of line as others write it.
        let seen: String = text.replace("\r\n", "\n").chars().map(keep).collect();
        out.write_all(seen.as_bytes())?;
        self.rest.drain(..whole);
        Ok(())
    }

    /// Writes what never became a character.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.rest.is_empty() { Ok(()) } else { out.write_all("\u{fffd}".as_bytes()) }
    }
}

/// Whether these bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_how_a_text_is_shown_is_not_printed() {
        for (c, what) in [
            ('\u{1b}', "begins a sequence"),
            ('\u{7}', "a bell"),
            ('\u{7f}', "delete"),
            ('\u{9b}', "begins a sequence, in one character"),
            ('\u{ad}', "a soft hyphen"),
            ('\u{200b}', "a blank without width"),
            ('\u{200e}', "from left to right"),
            ('\u{202e}', "overrides the direction"),
            ('\u{2066}', "isolates a direction"),
            ('\u{2028}', "separates lines"),
            ('\u{2029}', "separates paragraphs"),
            ('\u{2060}', "joins words"),
            ('\u{61c}', "an Arabic mark"),
            ('\u{180e}', "a Mongolian separator"),
            ('\u{3164}', "a filler"),
            ('\u{fe0f}', "selects a variation"),
            ('\u{feff}', "a mark of byte order"),
            ('\u{fff9}', "an annotation"),
            ('\u{e0041}', "a tag"),
            ('\u{e0101}', "selects a variation"),
            ('\u{e000}', "private"),
        ] {
            assert_eq!(printable(&format!("a{c}b")), "a b", "{what}");
            assert_eq!(printable_lines(&format!("a{c}\nb")), "a \nb", "{what}");
        }
        for text in ["ä€漢字🙂 \u{301}", "עברית", "nbsp\u{a0}x"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn json_says_the_same_with_nothing_unseen() {
        let value = serde_json::json!({ "a": "x\u{202e}y\u{9b}z\u{e0041}ä\n" });
        let text = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.contains("x\\u202ey\\u009bz\\udb40\\udc41ä\\n"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    fn shown(pieces: &[&[u8]]) -> String {
        let (mut filter, mut out) = (Pieces::default(), Vec::new());
        pieces.iter().for_each(|piece| filter.write(&mut out, piece).unwrap());
        filter.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pieces_are_shown_as_their_whole_would_be() {
        assert_eq!(shown(&[b"a\xc3", b"\xa4\tb\r\n", b"\xf0\x9f", b"\x99\x82\n"]), "aä\tb\n🙂\n");
        assert_eq!(shown(&[b"\x1b]0;title\x07\x1b[2J"]), " ]0;title  [2J");
        assert_eq!(shown(&[b"\xe2\x80", b"\xae", b"x\rover"]), " x over");
        assert_eq!(shown(&[b"\x9b31m\xff\xc3"]), "\u{fffd}31m\u{fffd}\u{fffd}");
        assert_eq!(shown(&[b"\xc3", b"(", b"\xe2\x82"]), "\u{fffd}(\u{fffd}");
    }
}
