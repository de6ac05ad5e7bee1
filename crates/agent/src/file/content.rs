//! Reading, writing and searching the content of one file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use serde::Serialize;
use utoipa::ToSchema;

use super::append;
use super::document::{self, Document, Form};
use super::failure::{Failure, Kind};
use super::given::{Encoding, Given};
use super::limits::{READ_BYTES, SEARCH_MATCHES};
use super::paths::Target;
use super::store::{self, Note};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadResult {
    content: String,
    file: String,
    /// Lines returned.
    line_count: u64,
    /// `utf-8`, or what a byte-order mark says of the file: `utf-8-bom`, `utf-16le` or `utf-16be`.
    #[schema(value_type = String)]
    encoding: &'static str,
}

impl ReadResult {
    /// What a caller should know who means to write the content back.
    pub(crate) fn hint(&self) -> Option<String> {
        (self.encoding != Form::Utf8.name()).then(|| {
            format!(
                "the file is {}, and content leaves out its byte-order mark: change it with replace or str_replace_editor, which keep encoding and mark; write would not",
                self.encoding
            )
        })
    }
}

/// Reads lines `start` (counted from 0) up to but not including `end`, line ends included.
pub(crate) fn read(target: &Target, start: Option<u64>, end: Option<u64>) -> Result<ReadResult, Failure> {
    let mut file = target.open()?;
    let mut beginning = [0; 3];
    let length = file.read_at(&mut beginning, 0).map_err(|error| target.failed(&error))?;
    let form = Form::of(&beginning[..length]);
    let lines = (start.unwrap_or(0), end);
    let content = match (form, lines) {
        (Form::Utf8, (start, Some(end))) => text_of_lines(target, file, start, end)?,
        (Form::Utf8, (start @ 1.., None)) => text_of_lines(target, file, start, u64::MAX)?,
        (Form::Utf8WithMark, (start, end)) if lines != (0, None) => {
            file.seek(SeekFrom::Start(length as u64)).map_err(|error| target.failed(&error))?;
            text_of_lines(target, file, start, end.unwrap_or(u64::MAX))?
        }
        (_, (start, end)) => {
            let text = Document::decode(target, read_whole(target, file, READ_BYTES)?)?.text;
            if lines == (0, None) { text } else { cut_lines(&text, start, end.unwrap_or(u64::MAX)) }
        }
    };
    let newlines = memchr::memchr_iter(b'\n', content.as_bytes()).count() as u64;
    let line_count = newlines + u64::from(!content.is_empty() && !content.ends_with('\n'));
    Ok(ReadResult { content, file: target.text.clone(), line_count, encoding: form.name() })
}

fn text_of_lines(target: &Target, file: File, start: u64, end: u64) -> Result<String, Failure> {
    document::utf8(target, read_lines(target, file, start, end)?, 0)
}

fn cut_lines(text: &str, start: u64, end: u64) -> String {
    let (start, end) =
        (usize::try_from(start).unwrap_or(usize::MAX), usize::try_from(end).unwrap_or(usize::MAX));
    text.split_inclusive('\n').take(end).skip(start).collect()
}

/// The whole file, if it has at most `limit` bytes.
pub(crate) fn read_whole(target: &Target, file: File, limit: u64) -> Result<Vec<u8>, Failure> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    if size <= limit {
        bytes.reserve(usize::try_from(size).unwrap_or(0));
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| target.failed(&error))?;
    }
    if size > limit || bytes.len() as u64 > limit {
        return Err(too_large(target, limit));
    }
    Ok(bytes)
}

fn too_large(target: &Target, limit: u64) -> Failure {
    let reason = format!("more than {} MiB at once; read a range of lines, or download it", limit >> 20);
    target.refused(Kind::TooLarge, reason)
}

fn read_lines(target: &Target, file: File, start: u64, end: u64) -> Result<Vec<u8>, Failure> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut kept = Vec::new();
    let mut line = 0;
    while line < end {
        let buffer = reader.fill_buf().map_err(|error| target.failed(&error))?;
        if buffer.is_empty() {
            break;
        }
        let newline = memchr::memchr(b'\n', buffer);
        let length = newline.map_or(buffer.len(), |at| at + 1);
        if line >= start {
            kept.extend_from_slice(&buffer[..length]);
            if kept.len() as u64 > READ_BYTES {
                return Err(too_large(target, READ_BYTES));
            }
        }
        line += u64::from(newline.is_some());
        reader.consume(length);
    }
    Ok(kept)
}

/// What to write, and how.
pub(crate) struct Writing {
    pub(crate) content: Given,
    pub(crate) encoding: Encoding,
    pub(crate) append: bool,
    pub(crate) leading_newline: bool,
    pub(crate) trailing_newline: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WriteResult {
    file: String,
    bytes_written: usize,
}

pub(crate) fn write(target: &Target, writing: Writing) -> Result<(WriteResult, Option<Note>), Failure> {
    let Writing { mut content, encoding, append, leading_newline, trailing_newline } = writing;
    let bytes = content.decode(target, encoding)?;
    let newline = |wanted: bool| if wanted { b"\n".as_slice() } else { b"" };
    let parts = [newline(leading_newline), bytes, newline(trailing_newline)];
    let note = if append { append::append(target, &parts)? } else { store::store(target, &parts)? };
    let bytes_written = parts.iter().map(|part| part.len()).sum();
    Ok((WriteResult { file: target.text.clone(), bytes_written }, note))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResult {
    file: String,
    matches: Vec<String>,
    /// Counted from 1, as `grep` and editors do.
    line_numbers: Vec<u64>,
    truncated: bool,
}

/// The lines of a file that match.
pub(crate) fn search(target: &Target, regex: &str) -> Result<SearchResult, Failure> {
    use grep_searcher::sinks::Lossy;
    let matcher = grep_regex::RegexMatcherBuilder::new()
        .multi_line(true)
        // Before the next, because it sets another: lines end with LF, and `$` is before a CR there too.
        .crlf(true)
        .line_terminator(Some(b'\n'))
        .size_limit(16 * 1024 * 1024)
        .build(regex)
        .map_err(|error| {
            target.refused(Kind::BadPattern, format!("the pattern is not understood: {error}"))
        })?;
    let file = target.open()?;
    let mut result = SearchResult {
        file: target.text.clone(),
        matches: Vec::new(),
        line_numbers: Vec::new(),
        truncated: false,
    };
    let sink = Lossy(|number, line| {
        if result.matches.len() >= SEARCH_MATCHES {
            result.truncated = true;
            return Ok(false);
        }
        result.line_numbers.push(number);
        result.matches.push(line.trim_end_matches(['\n', '\r']).to_owned());
        Ok(true)
    });
    let searched =
        grep_searcher::SearcherBuilder::new().line_number(true).build().search_file(&matcher, &file, sink);
    searched.map_err(|error| target.failed(&error))?;
    Ok(result)
}
