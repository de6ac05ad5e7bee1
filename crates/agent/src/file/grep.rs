//! `grep` over a directory tree, on the crates ripgrep is made of and with its defaults: hidden
//! files, files ignored by git and binary files are skipped.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkContextKind, SinkMatch,
};
use ignore::types::TypesBuilder;
use ignore::{WalkBuilder, WalkState};
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::failure::{Failure, Kind};
use super::globs;
use super::limits::GREP_BYTES;
use super::names;
use super::paths::Target;
use super::walk;

/// What `grep` is asked for.
pub(crate) struct GrepQuery {
    pub(crate) pattern: String,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) case_insensitive: bool,
    pub(crate) fixed_strings: bool,
    pub(crate) context_before: usize,
    pub(crate) context_after: usize,
    pub(crate) max_results: usize,
    /// Larger files are skipped, in bytes.
    pub(crate) max_file_size: u64,
    pub(crate) multiline: bool,
    pub(crate) offset: usize,
    pub(crate) file_type: Option<String>,
    pub(crate) recursive: bool,
}

#[derive(Debug, Clone, Serialize, PartialEq, Eq, ToSchema)]
pub(crate) struct GrepMatch {
    file: String,
    /// Counted from 1.
    line_number: u64,
    line_content: String,
    context_before: Vec<String>,
    context_after: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrepResult {
    path: String,
    pattern: String,
    matches: Vec<GrepMatch>,
    match_count: usize,
    files_searched: usize,
    files_matched: usize,
    truncated: bool,
    /// Files that were not searched, or not to their end. What is hidden or ignored is not among them.
    skipped: Skipped,
}

/// Files that a search had to leave out, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Skipped {
    /// Larger than `max_file_size`.
    too_large: usize,
    /// With a NUL byte: no text.
    binary: usize,
    /// Files and directories that could not be read.
    unreadable: usize,
    /// With a line too long to be held.
    line_too_long: usize,
}

impl GrepResult {
    /// What was left out, in words.
    pub(crate) fn hint(&self) -> Option<String> {
        let Skipped { too_large, binary, unreadable, line_too_long } = self.skipped;
        let parts = [
            (too_large, "larger than max_file_size"),
            (binary, "binary"),
            (unreadable, "unreadable"),
            (line_too_long, "with a line that is too long"),
        ];
        let said: Vec<_> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        (!said.is_empty()).then(|| format!("not searched: {}", said.join(", ")))
    }
}

/// Shared by the threads of one search.
struct Search<'a> {
    query: &'a GrepQuery,
    matcher: RegexMatcher,
    skipped: Mutex<Skipped>,
    found: Mutex<Vec<GrepMatch>>,
    /// Matches wanted at all, the ones skipped by `offset` and one that proves there are more included.
    enough: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    files_searched: AtomicUsize,
    files_matched: AtomicUsize,
    full: AtomicBool,
}

pub(crate) fn grep(target: &Target, query: &GrepQuery) -> Result<GrepResult, Failure> {
    let metadata = std::fs::metadata(&target.path).map_err(|error| target.failed(&error))?;
    let search = Search {
        matcher: matcher(target, query)?,
        skipped: Mutex::new(Skipped::default()),
        found: Mutex::new(Vec::new()),
        enough: query.offset.saturating_add(query.max_results).saturating_add(1),
        count: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        files_searched: AtomicUsize::new(0),
        files_matched: AtomicUsize::new(0),
        full: AtomicBool::new(false),
        query,
    };
    if metadata.is_dir() {
        target.require_readable_directory()?;
        search_tree(target, &search)?;
    } else {
        // Asked for by name, a pipe or device is refused instead of skipped.
        search.file(&mut searcher(query), &target.path, &target.open()?);
    }
    let mut matches = search.found.into_inner();
    matches.sort_by(|a, b| (&a.file, a.line_number).cmp(&(&b.file, b.line_number)));
    let truncated = search.full.into_inner() || matches.len() >= search.enough;
    let matches: Vec<_> = matches.into_iter().skip(query.offset).take(query.max_results).collect();
    Ok(GrepResult {
        path: target.text.clone(),
        pattern: query.pattern.clone(),
        match_count: matches.len(),
        matches,
        files_searched: search.files_searched.into_inner(),
        files_matched: search.files_matched.into_inner(),
        truncated,
        skipped: search.skipped.into_inner(),
    })
}

fn matcher(target: &Target, query: &GrepQuery) -> Result<RegexMatcher, Failure> {
    let mut builder = RegexMatcherBuilder::new();
    builder.case_insensitive(query.case_insensitive).multi_line(true).fixed_strings(query.fixed_strings);
    builder.size_limit(32 * 1024 * 1024);
    // Lines end with LF, and `$` is before a CR there too. The order matters: the first sets the second.
    builder.crlf(true);
    builder.line_terminator(if query.multiline { None } else { Some(b'\n') });
    builder.build(&query.pattern).map_err(|error| {
        let hint = if query.pattern.contains("(?") {
            " (look-around and back references are not supported)"
        } else {
            ""
        };
        target.refused(
            Kind::BadPattern,
            format!("pattern {:?} is not understood{hint}: {error}", query.pattern),
        )
    })
}

fn searcher(query: &GrepQuery) -> Searcher {
    SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .line_number(true)
        .before_context(query.context_before)
        .after_context(query.context_after)
        .multi_line(query.multiline)
        .heap_limit(Some(64 * 1024 * 1024))
        .build()
}

fn search_tree(target: &Target, search: &Search<'_>) -> Result<(), Failure> {
    let query = search.query;
    let names_hidden = query.include.iter().any(|glob| glob.split('/').any(|part| part.starts_with('.')));
    let mut walk = WalkBuilder::new(&target.path);
    walk.hidden(!names_hidden).threads(walk::THREADS);
    walk.overrides(globs::choice(target, &query.include, &query.exclude)?);
    walk.max_depth(if query.recursive { None } else { Some(1) });
    if let Some(name) = &query.file_type {
        let types = TypesBuilder::new().add_defaults().select(name).build();
        walk.types(types.map_err(|error| target.refused(Kind::BadPattern, error.to_string()))?);
    }
    walk.build_parallel().run(|| {
        let mut searcher = searcher(query);
        Box::new(move |entry| {
            if search.full.load(Ordering::Relaxed) {
                return WalkState::Quit;
            }
            let Ok(entry) = entry else {
                search.skipped.lock().unreadable += 1;
                return WalkState::Continue;
            };
            if entry.file_type().is_some_and(|kind| kind.is_file())
                && let Some(file) = search.open(entry.path())
            {
                search.file(&mut searcher, entry.path(), &file);
            }
            WalkState::Continue
        })
    });
    Ok(())
}

impl Search<'_> {
    /// Opens a file that is small enough. One that cannot be read is left out and counted; one that vanished is not.
    /// The size is asked of the open file: that is cheaper than by name.
    fn open(&self, path: &Path) -> Option<File> {
        // A pipe that took the file's place meanwhile must not be waited for.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Ok((file, metadata)) if metadata.len() <= self.query.max_file_size => {
                metadata.is_file().then_some(file)
            }
            Ok(_) => {
                self.skipped.lock().too_large += 1;
                None
            }
            Err(error) => {
                self.skipped.lock().unreadable += usize::from(error.kind() != std::io::ErrorKind::NotFound);
                None
            }
        }
    }

    fn file(&self, searcher: &mut Searcher, path: &Path, file: &File) {
        self.files_searched.fetch_add(1, Ordering::Relaxed);
        let mut collector =
            Collector { search: self, path, matches: Vec::new(), before: Vec::new(), binary: false };
        let searched = searcher.search_file(&self.matcher, file, &mut collector);
        if collector.binary {
            self.skipped.lock().binary += 1;
        }
        match searched.map_err(|error| error.raw_os_error()) {
            Ok(()) => {}
            // The searcher's own errors are about the memory for one line.
            Err(None) => self.skipped.lock().line_too_long += 1,
            Err(Some(_)) => self.skipped.lock().unreadable += 1,
        }
        if !collector.matches.is_empty() {
            self.files_matched.fetch_add(1, Ordering::Relaxed);
            self.found.lock().append(&mut collector.matches);
        }
    }

    /// Counts one more match of `bytes` bytes. `false`: there are enough.
    fn take(&self, bytes: usize) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if count >= self.enough || held > GREP_BYTES {
            self.full.store(true, Ordering::Relaxed);
        }
        count <= self.enough
    }
}

/// Receives the matches of one file.
struct Collector<'s, 'q> {
    search: &'s Search<'q>,
    path: &'s Path,
    matches: Vec<GrepMatch>,
    before: Vec<String>,
    binary: bool,
}

impl Sink for Collector<'_, '_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, std::io::Error> {
        if !self.search.take(found.bytes().len()) {
            return Ok(false);
        }
        self.matches.push(GrepMatch {
            file: names::shown(self.path).into_owned(),
            line_number: found.line_number().unwrap_or(0),
            line_content: line(found.bytes()),
            context_before: std::mem::take(&mut self.before),
            context_after: Vec::new(),
        });
        Ok(!self.search.full.load(Ordering::Relaxed) || self.search.query.context_after > 0)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, std::io::Error> {
        let text = line(context.bytes());
        self.search.bytes.fetch_add(text.len(), Ordering::Relaxed);
        match context.kind() {
            SinkContextKind::After => {
                if let Some(last) = self.matches.last_mut() {
                    last.context_after.push(text);
                }
            }
            _ => self.before.push(text),
        }
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, std::io::Error> {
        self.before.clear();
        Ok(true)
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> Result<bool, std::io::Error> {
        // What looked like text so far was the beginning of a binary file.
        self.matches.clear();
        self.binary = true;
        Ok(false)
    }
}

fn line(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned()
}

/// `500`, `10K`, `1M`, `2G`, in bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_units() {
        for (text, expect) in
            [("1M", Some(1 << 20)), ("500", Some(500)), ("10 kb", Some(10 << 10)), ("x", None)]
        {
            assert_eq!(parse_size(text), expect, "{text}");
        }
        assert_eq!(parse_size("99999999999999G"), None);
    }

    proptest! {
        #[test]
        fn no_size_panics(text in "\\PC{0,20}") {
            let _ = parse_size(&text);
        }
    }
}
