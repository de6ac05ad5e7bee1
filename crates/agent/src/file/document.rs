//! A file as text: what every call that reads or edits lines agrees on.
//!
//! A byte-order mark says how the file is encoded and is no part of its text; an edit puts it back. UTF-16 is text where
//! such a mark says so. A line ends with LF or CRLF: a text given by a caller matches either, and what is put in has the
//! line ends of its surroundings.

use std::borrow::Cow;
use std::ops::Range;

use super::failure::{Failure, Kind};
use super::paths::Target;

const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";
const MARK: char = '\u{FEFF}';

/// How text is put into bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Utf8,
    Utf8WithMark,
    Utf16Little,
    Utf16Big,
}

impl Form {
    /// What the first bytes of a file say.
    pub(super) fn of(beginning: &[u8]) -> Self {
        match beginning {
            [0xEF, 0xBB, 0xBF, ..] => Self::Utf8WithMark,
            // With nothing behind it, it is two bytes that are no text.
            [0xFF, 0xFE, _, ..] => Self::Utf16Little,
            [0xFE, 0xFF, _, ..] => Self::Utf16Big,
            _ => Self::Utf8,
        }
    }

    /// What callers are told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf8WithMark => "utf-8-bom",
            Self::Utf16Little => "utf-16le",
            Self::Utf16Big => "utf-16be",
        }
    }

    pub(super) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf8WithMark => [UTF8_MARK, text.as_bytes()].concat(),
            Self::Utf16Little => {
                std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
            }
            Self::Utf16Big => {
                std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
            }
        }
    }
}

/// A file's text, and how it was written.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) form: Form,
    pub(super) text: String,
}

impl Document {
    /// The text of a whole file.
    pub(super) fn decode(target: &Target, mut bytes: Vec<u8>) -> Result<Self, Failure> {
        let form = Form::of(&bytes);
        let text = match form {
            Form::Utf8 => utf8(target, bytes, 0)?,
            Form::Utf8WithMark => {
                bytes.drain(..UTF8_MARK.len());
                utf8(target, bytes, UTF8_MARK.len())?
            }
            Form::Utf16Little => utf16(target, &bytes, u16::from_le_bytes)?,
            Form::Utf16Big => utf16(target, &bytes, u16::from_be_bytes)?,
        };
        Ok(Self { form, text })
    }
}

/// Whether [`Document::decode`] has an answer.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    match Form::of(bytes) {
        Form::Utf8 | Form::Utf8WithMark => std::str::from_utf8(bytes).is_ok(),
        Form::Utf16Little => utf16_text(bytes, u16::from_le_bytes).is_some(),
        Form::Utf16Big => utf16_text(bytes, u16::from_be_bytes).is_some(),
    }
}

/// The error counts from the beginning of what was read, of which `before` bytes were a mark.
pub(super) fn utf8(target: &Target, bytes: Vec<u8>, before: usize) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = before + error.utf8_error().valid_up_to();
        target.refused(Kind::Decode, format!("it is not UTF-8 text (byte {at} of what was read)"))
    })
}

fn utf16(target: &Target, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Failure> {
    utf16_text(bytes, unit)
        .ok_or_else(|| target.refused(Kind::Decode, "it begins like UTF-16 text and is none"))
}

fn utf16_text(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes[2..].as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(units.iter().map(|two| unit(*two))).collect();
    // The mark of UTF-32 begins like that of UTF-16.
    text.ok().filter(|text| rest.is_empty() && !text.starts_with('\0'))
}

/// Where a text of a caller occurs in a document.
pub(super) struct Occurrences<'a> {
    text: &'a str,
    /// The text with LF alone at the end of lines.
    plain: Cow<'a, str>,
    wanted: Cow<'a, str>,
    verbatim: bool,
    /// The caller wrote LF.
    means_line_feed: bool,
}

impl<'a> Occurrences<'a> {
    /// What has a carriage return in it is looked for as it is first: it may be the carriage return that is meant.
    pub(super) fn of(wanted: &'a str, text: &'a str) -> Self {
        let unmarked = wanted.strip_prefix(MARK).filter(|rest| !rest.is_empty()).unwrap_or(wanted);
        if unmarked.contains('\r') && text.contains(unmarked) {
            let (plain, wanted) = (Cow::Borrowed(text), Cow::Borrowed(unmarked));
            return Self { text, plain, wanted, verbatim: true, means_line_feed: false };
        }
        let means_line_feed = unmarked.contains('\n') && !unmarked.contains('\r');
        let (plain, wanted) = (with_line_feeds(text), with_line_feeds(unmarked));
        Self { text, plain, wanted, verbatim: false, means_line_feed }
    }

    /// The places in the document, in order, none overlapping another.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut position = Position { plain: 0, text: 0 };
        self.plain.match_indices(self.wanted.as_ref()).map(move |(at, found)| {
            let start = self.advance(&mut position, at);
            start..self.advance(&mut position, at + found.len())
        })
    }

    /// Goes on to `to` in the plain text. Gives the same place in the document.
    fn advance(&self, position: &mut Position, to: usize) -> usize {
        if self.verbatim || self.plain.len() == self.text.len() {
            return to;
        }
        let from = position.plain;
        for at in memchr::memchr_iter(b'\n', &self.plain.as_bytes()[from..to]) {
            let line_feed = from + at;
            position.text += line_feed - position.plain;
            position.text += if self.text.as_bytes()[position.text] == b'\r' { 2 } else { 1 };
            position.plain = line_feed + 1;
        }
        position.text += to - position.plain;
        position.plain = to;
        position.text
    }

    /// Makes of `new` what is put at the places, with the line ends there.
    pub(super) fn replacement(&self, new: &'a str) -> Replacement<'a> {
        if self.verbatim {
            return Replacement { forms: None, new, text: "", next: None, is_last: true };
        }
        let mut replacement = Replacement::adapted(new, self.text);
        if self.means_line_feed && new.contains("\r\n") {
            // LF is given for what goes and CRLF for what comes: so it is meant.
            let marked = with_line_feeds(new).replace('\n', "\r\n");
            replacement.forms = Some((Cow::Owned(marked.clone()), Cow::Owned(marked)));
        }
        replacement
    }
}

struct Position {
    plain: usize,
    text: usize,
}

/// A text that is put into another, with the line ends of where it goes.
pub(super) struct Replacement<'a> {
    /// With LF, and with CRLF.
    forms: Option<(Cow<'a, str>, Cow<'a, str>)>,
    new: &'a str,
    text: &'a str,
    /// The first line end at or behind the place asked for last.
    next: Option<usize>,
    /// There is none behind that.
    is_last: bool,
}

impl<'a> Replacement<'a> {
    pub(super) fn adapted(new: &'a str, text: &'a str) -> Self {
        let forms = new.contains('\n').then(|| {
            let plain = with_line_feeds(new);
            let marked = if text.contains("\r\n") { plain.replace('\n', "\r\n") } else { String::new() };
            (plain, Cow::Owned(marked))
        });
        let next = memchr::memchr(b'\n', text.as_bytes());
        Self { forms, new, text, next, is_last: false }
    }

    /// What to put at `place`, which is not before the one asked for last. A text of one line has no line ends to keep.
    pub(super) fn at(&mut self, place: usize) -> &str {
        let Some((plain, marked)) = &self.forms else { return self.new };
        let bytes = self.text.as_bytes();
        if !self.is_last && self.next.is_some_and(|next| next < place) {
            let behind = memchr::memchr(b'\n', &bytes[place..]).map(|at| place + at);
            // None behind: the last one before stands for it from now on.
            self.is_last = behind.is_none();
            self.next = behind.or_else(|| memchr::memrchr(b'\n', &bytes[..place]));
        }
        match self.next {
            None => self.new,
            Some(end) if end > 0 && bytes[end - 1] == b'\r' => marked,
            Some(_) => plain,
        }
    }
}

fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
