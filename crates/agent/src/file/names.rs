//! Paths as text. Names are bytes, and JSON has only text: a byte that is no UTF-8 is written `\xHH`.
//!
//! A backslash that could be taken for the beginning of such an escape is written `\x5c`, so every path has one text and
//! every such text one path. Names without a backslash, and nearly all with one, are written as they are.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const BACKSLASH: u8 = b'\\';

/// A path, or a part of one, as text.
pub(crate) fn shown<P: AsRef<Path> + ?Sized>(path: &P) -> Cow<'_, str> {
    let bytes = path.as_ref().as_os_str().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !has_escape(bytes) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

/// The path that a text means.
pub(crate) fn meant(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    if !has_escape(bytes) {
        return PathBuf::from(text);
    }
    let mut meant = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escape_at(bytes, at) {
            Some(byte) => {
                meant.push(byte);
                at += 4;
            }
            None => {
                meant.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(meant).into()
}

fn has_escape(bytes: &[u8]) -> bool {
    memchr::memchr_iter(BACKSLASH, bytes).any(|at| escape_at(bytes, at).is_some())
}

/// The byte that is escaped at a place: one that can be no UTF-8 by itself, or a backslash.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let [BACKSLASH, b'x', high, low] = *bytes.get(at..at + 4)? else { return None };
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let byte = digit(high)? << 4 | digit(low)?;
    (byte >= 0x80 || byte == BACKSLASH).then_some(byte)
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        for (at, character) in valid.char_indices() {
            if escape_at(valid.as_bytes(), at).is_some() {
                text.push_str("\\x5c");
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_and_what_looks_like_them_have_texts_of_their_own() {
        for (bytes, text) in [
            (b"caf\xe9.txt".as_slice(), r"caf\xe9.txt"),
            (br"caf\xe9.txt", r"caf\x5cxe9.txt"),
            (br"a\x5c", r"a\x5cx5c"),
            (br"C:\new\x41\xFF", r"C:\new\x41\xFF"),
            ("ü/ß".as_bytes(), "ü/ß"),
        ] {
            assert_eq!(shown(OsStr::from_bytes(bytes)), text);
            assert_eq!(meant(text).as_os_str().as_bytes(), bytes);
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c'), Just(b'e')], 0..24)) {
            let name = OsStr::from_bytes(&bytes);
            let text = shown(name).into_owned();
            prop_assert_eq!(meant(&text), PathBuf::from(name));
        }
    }
}
