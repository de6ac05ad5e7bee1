//! Reading, writing, replacing and searching the content of one file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use base64::Engine;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failure::{Failure, Kind};
use super::limits::{EDIT_BYTES, READ_BYTES, SEARCH_MATCHES};
use super::paths::Target;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadResult {
    content: String,
    file: String,
    /// Lines returned.
    line_count: u64,
}

/// Reads lines `start` (counted from 0) up to but not including `end`, line ends included.
pub(crate) fn read(target: &Target, start: Option<u64>, end: Option<u64>) -> Result<ReadResult, Failure> {
    let file = target.open()?;
    let bytes = match (start.unwrap_or(0), end) {
        (0, None) => read_whole(target, file, READ_BYTES)?,
        (start, end) => read_lines(target, file, start, end.unwrap_or(u64::MAX))?,
    };
    let content = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        target.refused(Kind::Decode, format!("it is not UTF-8 text (byte {at} of what was read)"))
    })?;
    let newlines = memchr::memchr_iter(b'\n', content.as_bytes()).count() as u64;
    let line_count = newlines + u64::from(!content.is_empty() && !content.ends_with('\n'));
    Ok(ReadResult { content, file: target.text.clone(), line_count })
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

/// What to write, and how.
pub(crate) struct Writing {
    pub(crate) content: String,
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

pub(crate) fn write(target: &Target, writing: Writing) -> Result<WriteResult, Failure> {
    let Writing { content, encoding, append, leading_newline, trailing_newline } = writing;
    let mut bytes = decode(target, content, encoding)?;
    if leading_newline {
        bytes.insert(0, b'\n');
    }
    if trailing_newline {
        bytes.push(b'\n');
    }
    let mut file = open_for_writing(target, append)?;
    file.write_all(&bytes).map_err(|error| target.failed(&error))?;
    Ok(WriteResult { file: target.text.clone(), bytes_written: bytes.len() })
}

fn decode(target: &Target, content: String, encoding: Encoding) -> Result<Vec<u8>, Failure> {
    match encoding {
        Encoding::Utf8 => Ok(content.into_bytes()),
        Encoding::Base64 => decode_base64(&content)
            .map_err(|error| target.refused(Kind::Decode, format!("content is not base64: {error}"))),
        Encoding::Raw => content
            .chars()
            .map(|c| u8::try_from(u32::from(c)))
            .collect::<Result<_, _>>()
            .map_err(|_| target.refused(Kind::Decode, "raw content has a character beyond U+00FF")),
    }
}

/// With or without padding; line breaks, as many encoders put in, are skipped.
fn decode_base64(content: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    if content.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let compact: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return engine.decode(compact);
    }
    engine.decode(content)
}

/// Opens a regular file to write, made with its parent directories when missing. It is emptied unless `append`.
pub(crate) fn open_for_writing(target: &Target, append: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.create(true).append(append).write(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    let file = match options.open(&target.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(parent) = target.path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| target.failed(&error))?;
            }
            options.open(&target.path)
        }
        other => other,
    };
    let file = file.map_err(|error| target.failed(&error))?;
    // Only a regular file is emptied: what a pipe or device does with it is its own.
    target.require_regular(&file)?;
    if !append {
        file.set_len(0).map_err(|error| target.failed(&error))?;
    }
    Ok(file)
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplaceResult {
    file: String,
    pub(crate) replaced_count: usize,
}

pub(crate) fn replace(target: &Target, old: &str, new: &str) -> Result<ReplaceResult, Failure> {
    let bytes = read_whole(target, target.open()?, EDIT_BYTES)?;
    let finder = memchr::memmem::Finder::new(old);
    let mut changed = Vec::with_capacity(bytes.len());
    let (mut from, mut count) = (0, 0);
    for at in finder.find_iter(&bytes) {
        changed.extend_from_slice(&bytes[from..at]);
        changed.extend_from_slice(new.as_bytes());
        from = at + old.len();
        count += 1;
    }
    if count > 0 {
        changed.extend_from_slice(&bytes[from..]);
        let mut file = open_for_writing(target, false)?;
        file.write_all(&changed).map_err(|error| target.failed(&error))?;
    }
    Ok(ReplaceResult { file: target.text.clone(), replaced_count: count })
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
