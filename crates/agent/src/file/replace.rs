//! `replace`: a text for another, everywhere in a file.

use serde::Serialize;
use utoipa::ToSchema;

use super::document::{self, Document, Occurrences};
use super::failure::Failure;
use super::paths::Target;
use super::store::{self, Note};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplaceResult {
    file: String,
    pub(crate) replaced_count: usize,
    /// Not so when the new text is the old one.
    #[serde(skip)]
    pub(crate) changed: bool,
}

pub(crate) fn replace(
    target: &Target,
    old: &str,
    new: &str,
) -> Result<(ReplaceResult, Option<Note>), Failure> {
    let ((replaced_count, changed), note) = store::edit(target, |bytes| {
        if !document::is_text(&bytes) {
            // It has no line ends either, and is searched byte by byte.
            let (count, changed) = replaced_bytes(&bytes, old.as_bytes(), new.as_bytes());
            let changed = (changed != bytes).then_some(changed);
            return Ok(((count, changed.is_some()), changed));
        }
        let document = Document::decode(target, bytes)?;
        let (count, text) = replaced(&document.text, old, new);
        let changed = (text != document.text).then(|| document.form.encode(&text));
        Ok(((count, changed.is_some()), changed))
    })?;
    Ok((ReplaceResult { file: target.text.clone(), replaced_count, changed }, note))
}

/// How often `old` is there, and the text with `new` in its places.
pub(super) fn replaced(text: &str, old: &str, new: &str) -> (usize, String) {
    let occurrences = Occurrences::of(old, text);
    let mut replacement = occurrences.replacement(new);
    let mut changed = String::with_capacity(text.len());
    let (mut from, mut count) = (0, 0);
    for range in occurrences.ranges() {
        changed.push_str(&text[from..range.start]);
        changed.push_str(replacement.at(range.start));
        from = range.end;
        count += 1;
    }
    changed.push_str(&text[from..]);
    (count, changed)
}

fn replaced_bytes(bytes: &[u8], old: &[u8], new: &[u8]) -> (usize, Vec<u8>) {
    let finder = memchr::memmem::Finder::new(old);
    let mut changed = Vec::with_capacity(bytes.len());
    let (mut from, mut count) = (0, 0);
    for at in finder.find_iter(bytes) {
        changed.extend_from_slice(&bytes[from..at]);
        changed.extend_from_slice(new);
        from = at + old.len();
        count += 1;
    }
    changed.extend_from_slice(&bytes[from..]);
    (count, changed)
}
