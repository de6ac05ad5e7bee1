//! Content as a caller gives it, decoded where it lies: of a hundred megabytes there is one copy, in the request.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use utoipa::ToSchema;

use super::failure::{Failure, Kind};
use super::paths::Target;

/// Characters of base64 decoded at once, and the bytes they are.
const ENCODED: usize = 64 * 1024;
const DECODED: usize = ENCODED / 4 * 3;

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq, ToSchema)]
pub(crate) enum Encoding {
    #[default]
    #[serde(rename = "utf-8", alias = "utf8", alias = "UTF-8", alias = "text")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
    /// Each character is one byte.
    #[serde(rename = "raw", alias = "latin-1")]
    Raw,
}

/// The bytes of a text, somewhere in a request or by themselves.
pub(crate) struct Given {
    bytes: Vec<u8>,
    range: Range<usize>,
}

/// Where a text is that was read from a request.
pub(crate) enum Found {
    /// In the request itself.
    Within(Range<usize>),
    /// It had escapes, and was copied.
    Apart(String),
}

impl Found {
    /// `text` was read from `request`, and borrows from it unless it is owned.
    pub(crate) fn of(text: Cow<'_, str>, request: &[u8]) -> Self {
        match text {
            Cow::Borrowed(text) => {
                let start = text.as_ptr().addr().saturating_sub(request.as_ptr().addr());
                Self::Within(start..start + text.len())
            }
            Cow::Owned(text) => Self::Apart(text),
        }
    }
}

impl Given {
    pub(crate) fn new(found: Found, request: Vec<u8>) -> Self {
        match found {
            Found::Within(range) => Self { bytes: request, range },
            Found::Apart(text) => Self { range: 0..text.len(), bytes: text.into_bytes() },
        }
    }

    /// The bytes that are meant. They take the place of the text, which they are never longer than.
    pub(super) fn decode(&mut self, target: &Target, encoding: Encoding) -> Result<&[u8], Failure> {
        let Some(text) = self.bytes.get_mut(self.range.clone()) else {
            return Err(target.refused(Kind::Decode, "content is not where it was read"));
        };
        let length = match encoding {
            Encoding::Utf8 => text.len(),
            Encoding::Base64 => decode_base64(text)
                .map_err(|error| target.refused(Kind::Decode, format!("content is not base64: {error}")))?,
            Encoding::Raw => decode_raw(text)
                .ok_or_else(|| target.refused(Kind::Decode, "raw content has a character beyond U+00FF"))?,
        };
        Ok(&text[..length])
    }
}

/// With or without padding; line breaks, as many encoders put in, are skipped. Gives the number of bytes.
fn decode_base64(text: &mut [u8]) -> Result<usize, base64::DecodeError> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let length = without_white_space(text);
    let mut decoded = vec![0; DECODED];
    let (mut from, mut to) = (0, 0);
    while from < length {
        let end = length.min(from + ENCODED);
        let piece = &text[from..end];
        // Padding is for the end of all, and each piece has an end.
        if end < length
            && let Some(at) = memchr::memchr(b'=', piece)
        {
            return Err(base64::DecodeError::InvalidByte(from + at, b'='));
        }
        let count = engine.decode_slice(piece, &mut decoded).map_err(|error| shifted(error, from))?;
        text[to..to + count].copy_from_slice(&decoded[..count]);
        (from, to) = (end, to + count);
    }
    Ok(to)
}

/// An error of a piece that begins at `from`, counted from the beginning of all.
fn shifted(error: base64::DecodeSliceError, from: usize) -> base64::DecodeError {
    use base64::{DecodeError, DecodeSliceError};
    match error {
        DecodeSliceError::DecodeError(DecodeError::InvalidByte(at, byte)) => {
            DecodeError::InvalidByte(from + at, byte)
        }
        DecodeSliceError::DecodeError(DecodeError::InvalidLastSymbol(at, byte)) => {
            DecodeError::InvalidLastSymbol(from + at, byte)
        }
        DecodeSliceError::DecodeError(other) => other,
        DecodeSliceError::OutputSliceTooSmall => DecodeError::InvalidLength(from),
    }
}

/// Moves together what is not white space. Gives its length.
fn without_white_space(text: &mut [u8]) -> usize {
    let first = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let mut to = first;
    for from in first..text.len() {
        if !text[from].is_ascii_whitespace() {
            text[to] = text[from];
            to += 1;
        }
    }
    to
}

/// Each character is the byte of its number. `None`: one has no such byte.
fn decode_raw(text: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while from < text.len() {
        // In UTF-8 U+0080 to U+00FF are two bytes, of which the first is C2 or C3.
        let (byte, length) = match text[from] {
            ascii @ 0..=0x7F => (ascii, 1),
            first @ (0xC2 | 0xC3) => ((first << 6) | (text.get(from + 1)? & 0x3F), 2),
            _ => return None,
        };
        text[to] = byte;
        (from, to) = (from + length, to + 1);
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str, encoding: Encoding) -> Result<Vec<u8>, String> {
        let target = Target::parse("write", "/x", Path::new("/")).unwrap();
        let mut given = Given::new(Found::Apart(text.to_owned()), Vec::new());
        given.decode(&target, encoding).map(<[u8]>::to_vec).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn a_text_is_found_again_in_its_request() {
        let request = br#"{"a": "plain", "b": "esc\u0061ped"}"#.to_vec();
        let text: std::collections::BTreeMap<&str, Cow<'_, str>> =
            [("a", Cow::Borrowed(std::str::from_utf8(&request[7..12]).unwrap()))].into();
        let found = Found::of(text["a"].clone(), &request);
        assert!(matches!(&found, Found::Within(range) if *range == (7..12)));
        assert_eq!(&Given::new(found, request).bytes[7..12], b"plain");
    }

    #[test]
    fn padding_in_the_middle_is_found_wherever_pieces_end() {
        for size in [3, DECODED - 1, DECODED, DECODED + 1] {
            let text = BASE64_STANDARD.encode(vec![7; size]);
            assert_eq!(decoded(&text, Encoding::Base64).unwrap().len(), size);
            assert_eq!(decoded(text.trim_end_matches('='), Encoding::Base64).unwrap().len(), size);
            let wrong = format!("{}AA=={text}", &text[..text.len() / 4 * 4 - 4]);
            assert!(decoded(&wrong, Encoding::Base64).is_err(), "{size}");
        }
        let error = decoded(&format!("{}*", "A".repeat(2 * ENCODED + 7)), Encoding::Base64).unwrap_err();
        assert!(error.contains(&(2 * ENCODED + 7).to_string()), "{error}");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200), breaks in 1usize..80) {
            let text = BASE64_STANDARD.encode(&bytes);
            let lines: Vec<_> = text.as_bytes().chunks(breaks).map(String::from_utf8_lossy).collect();
            prop_assert_eq!(&decoded(&lines.join("\r\n"), Encoding::Base64).unwrap(), &bytes);
            let raw: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            prop_assert_eq!(&decoded(&raw, Encoding::Raw).unwrap(), &bytes);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let expected: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            prop_assert_eq!(decoded(&text, Encoding::Raw).ok(), expected);
            let _ = decoded(&text, Encoding::Base64);
        }
    }
}
