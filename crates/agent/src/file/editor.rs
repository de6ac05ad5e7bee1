//! `str_replace_editor`: view, create, replace, insert and undo, as agents trained on it expect.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::content::read_whole;
use super::document::{Document, Occurrences, Replacement};
use super::failure::{Failure, Kind};
use super::find::SortBy;
use super::limits::EDIT_BYTES;
use super::list::{self, ListQuery};
use super::paths::Target;
use super::replace::replaced;
use super::store::{self, Note};

/// Earlier contents kept for one file.
const UNDO_STEPS: usize = 10;
/// Bytes of earlier contents kept for all files; the oldest go first.
const UNDO_BYTES: usize = 16 * 1024 * 1024;
/// Lines shown around an edit.
const SNIPPET: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    View,
    Create,
    StrReplace,
    Insert,
    UndoEdit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ReplaceMode {
    All,
    First,
    Last,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EditRequest {
    pub(crate) command: Command,
    /// The file's path; `view` takes a directory too.
    pub(crate) path: String,
    /// For `create`: the content.
    file_text: Option<String>,
    /// For `str_replace`: the text to replace, which must be there exactly once unless `replace_mode` is given.
    old_str: Option<String>,
    /// For `str_replace` and `insert`: the text to put there.
    new_str: Option<String>,
    /// For `insert`: the line after which, 0 for the beginning.
    insert_line: Option<i64>,
    /// For `view`: first and last line, counted from 1; -1 for the end.
    view_range: Option<Vec<i64>>,
    /// For `str_replace`: which of several.
    replace_mode: Option<ReplaceMode>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EditResult {
    output: String,
    error: Option<String>,
    path: String,
    prev_exist: bool,
    old_content: Option<String>,
    new_content: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// What files held before they were edited.
#[derive(Default)]
pub(crate) struct Undo {
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    files: HashMap<PathBuf, VecDeque<Option<Vec<u8>>>>,
    order: VecDeque<PathBuf>,
    bytes: usize,
}

impl Undo {
    fn remember(&self, target: &Target, content: Option<Vec<u8>>) {
        let mut steps = self.steps.lock();
        steps.bytes += content.as_ref().map_or(0, Vec::len);
        let history = steps.files.entry(target.path.clone()).or_default();
        history.push_back(content);
        let surplus = if history.len() > UNDO_STEPS { history.pop_front().flatten() } else { None };
        steps.bytes -= surplus.map_or(0, |old| old.len());
        steps.order.push_back(target.path.clone());
        while steps.bytes > UNDO_BYTES || steps.order.len() > 10_000 {
            let Some(oldest) = steps.order.pop_front() else { break };
            let dropped = steps.files.get_mut(&oldest).and_then(VecDeque::pop_front);
            steps.bytes -= dropped.flatten().map_or(0, |old| old.len());
        }
    }

    /// `None`: nothing to undo. `Some(None)`: the file did not exist.
    fn take(&self, target: &Target) -> Option<Option<Vec<u8>>> {
        let mut steps = self.steps.lock();
        let content = steps.files.get_mut(&target.path)?.pop_back()?;
        steps.bytes -= content.as_ref().map_or(0, Vec::len);
        Some(content)
    }
}

/// Does what is asked. The note says what is to be known of how the file was written.
pub(crate) fn edit(
    target: &Target,
    request: EditRequest,
    undo: &Undo,
) -> Result<(EditResult, Option<Note>), Failure> {
    match request.command {
        Command::View => Ok((view(target, request.view_range.as_deref())?, None)),
        Command::Create => create(target, request.file_text, undo),
        Command::StrReplace => replace(target, &request, undo),
        Command::Insert => insert(target, &request, undo),
        Command::UndoEdit => undo_edit(target, undo),
    }
}

fn view(target: &Target, range: Option<&[i64]>) -> Result<EditResult, Failure> {
    if target.path.is_dir() {
        return view_directory(target);
    }
    let content = text(target)?.text;
    let lines: Vec<&str> = content.lines().collect();
    let (first, last) = match range {
        None | Some([]) => (1, lines.len()),
        Some(range) => checked_range(target, range, lines.len())?,
    };
    let shown = numbered(&lines[first - 1..last], first);
    let output = format!("Here's the result of running `cat -n` on {}:\n{shown}\n", target.text);
    Ok(result(target, output, true, None, Some(content)))
}

fn checked_range(target: &Target, range: &[i64], lines: usize) -> Result<(usize, usize), Failure> {
    let wrong = || {
        let reason =
            format!("view_range {range:?} is not two line numbers from 1 to {lines} (-1 for the end)");
        target.refused(Kind::InvalidTarget, reason)
    };
    let [first, last] = range else { return Err(wrong()) };
    let first = usize::try_from(*first).ok().filter(|first| *first >= 1).ok_or_else(wrong)?;
    let last = if *last == -1 { lines } else { usize::try_from(*last).map_err(|_| wrong())?.min(lines) };
    if first > last.max(1) || first > lines.max(1) || lines == 0 {
        return if lines == 0 { Ok((1, 0)) } else { Err(wrong()) };
    }
    Ok((first, last))
}

fn view_directory(target: &Target) -> Result<EditResult, Failure> {
    let query = ListQuery {
        recursive: true,
        show_hidden: false,
        file_types: Vec::new(),
        max_depth: Some(2),
        include_size: false,
        include_permissions: false,
        sort_by: SortBy::Path,
        descending: false,
    };
    let paths = list::list(target, &query)?.paths();
    let output = format!(
        "Here's the files and directories up to 2 levels deep in {}, excluding hidden items:\n{}\n",
        target.text,
        paths.join("\n")
    );
    Ok(result(target, output, true, None, None))
}

type Edited = Result<(EditResult, Option<Note>), Failure>;

fn create(target: &Target, content: Option<String>, undo: &Undo) -> Edited {
    let Some(content) = content else { return Err(missing(target, "file_text", "create")) };
    if target.path.symlink_metadata().is_ok() {
        let reason = "the file already exists; use str_replace or insert, or write it with /v1/file/write";
        return Err(target.refused(Kind::AlreadyExists, reason));
    }
    let note = store::store(target, &[content.as_bytes()])?;
    undo.remember(target, None);
    let output = format!("File created successfully at: {}", target.text);
    Ok((result(target, output, false, None, Some(content)), note))
}

/// A change of a document's text: the new text, the line it is in, and how many lines it put there.
struct Change {
    text: String,
    line: usize,
    added: usize,
}

fn replace(target: &Target, request: &EditRequest, undo: &Undo) -> Edited {
    let Some(old) = request.old_str.as_deref().filter(|old| !old.is_empty()) else {
        return Err(missing(target, "old_str", "str_replace"));
    };
    let new = request.new_str.as_deref().unwrap_or("");
    edited(target, undo, |text| {
        let occurrences = Occurrences::of(old, text);
        let count = occurrences.ranges().count();
        let chosen = match (count, request.replace_mode) {
            (0, _) => {
                return Err(target.refused(Kind::NoMatch, "old_str did not appear verbatim in the file"));
            }
            (_, Some(ReplaceMode::All)) => {
                let line = occurrences.ranges().next().map_or(1, |range| line_of(text, range.start));
                let (_, changed) = replaced(text, old, new);
                return Ok(Change { text: changed, line, added: new.lines().count() });
            }
            (_, Some(ReplaceMode::Last)) => occurrences.ranges().last(),
            (_, Some(ReplaceMode::First)) | (1, None) => occurrences.ranges().next(),
            (count, None) => {
                let places = occurrences.ranges().take(20);
                let lines: Vec<_> = places.map(|range| line_of(text, range.start)).collect();
                let reason = format!("old_str appears {count} times (lines {lines:?}); it has to be unique");
                return Err(target.refused(Kind::NoMatch, reason));
            }
        };
        let range = chosen.unwrap_or_default();
        let line = line_of(text, range.start);
        let mut replacement = occurrences.replacement(new);
        let changed = [&text[..range.start], replacement.at(range.start), &text[range.end..]].concat();
        Ok(Change { text: changed, line, added: new.lines().count() })
    })
}

fn insert(target: &Target, request: &EditRequest, undo: &Undo) -> Edited {
    let Some(line) = request.insert_line else { return Err(missing(target, "insert_line", "insert")) };
    let Some(new) = request.new_str.as_deref() else { return Err(missing(target, "new_str", "insert")) };
    edited(target, undo, |text| {
        let count = text.lines().count();
        let Some(line) = usize::try_from(line).ok().filter(|line| *line <= count) else {
            let reason = format!("insert_line {line} is not from 0 to {count}, the number of lines");
            return Err(target.refused(Kind::NoMatch, reason));
        };
        let mut added = new.to_owned();
        if !added.ends_with('\n') && line < count {
            added.push('\n');
        }
        if line == count && line > 0 && !text.ends_with('\n') {
            added.insert(0, '\n');
        }
        let at = text.split_inclusive('\n').take(line).map(str::len).sum();
        let mut replacement = Replacement::adapted(&added, text);
        let changed = [&text[..at], replacement.at(at), &text[at..]].concat();
        Ok(Change { text: changed, line: line + 1, added: new.lines().count() })
    })
}

fn undo_edit(target: &Target, undo: &Undo) -> Edited {
    let Some(previous) = undo.take(target) else {
        return Err(target.refused(Kind::NoMatch, "there is no edit of it to undo"));
    };
    let current = text(target).ok().map(|document| document.text);
    let (output, note) = match &previous {
        Some(content) => {
            let note = store::store(target, &[content]).inspect_err(|_| {
                // It can be undone once there is room again.
                undo.remember(target, previous.clone());
            })?;
            (format!("Last edit to {} undone successfully.", target.text), note)
        }
        None => {
            std::fs::remove_file(&target.path).map_err(|error| target.failed(&error))?;
            (format!("{} did not exist before; it was removed.", target.text), None)
        }
    };
    let previous =
        previous.and_then(|bytes| Document::decode(target, bytes).ok()).map(|document| document.text);
    Ok((result(target, output, true, current, previous), note))
}

/// Changes the text of a file and keeps its encoding. A change that changes nothing is said to be none.
fn edited(target: &Target, undo: &Undo, change: impl FnOnce(&str) -> Result<Change, Failure>) -> Edited {
    let ((old, before, change), note) = store::edit(target, |bytes| {
        let document = Document::decode(target, bytes)?;
        let change = change(&document.text)?;
        let Document { form, text } = document;
        let encoded = (change.text != text).then(|| form.encode(&change.text));
        Ok(((text, form, change), encoded))
    })?;
    let Change { text, line, added } = change;
    if text == old {
        let output = format!("Nothing was changed in {}: the new text is the old one.", target.text);
        return Ok((result(target, output, true, Some(old), Some(text)), None));
    }
    undo.remember(target, Some(before.encode(&old)));
    let lines: Vec<&str> = text.lines().collect();
    let first = line.saturating_sub(SNIPPET).max(1);
    let last = (line + added + SNIPPET).min(lines.len());
    let snippet = numbered(lines.get(first - 1..last).unwrap_or_default(), first);
    let output = format!(
        "The file {} has been edited. Here's the result of running `cat -n` on a snippet of it:\n{snippet}\n",
        target.text
    );
    Ok((result(target, output, true, Some(old), Some(text)), note))
}

fn text(target: &Target) -> Result<Document, Failure> {
    Document::decode(target, read_whole(target, target.open()?, EDIT_BYTES)?)
}

fn line_of(content: &str, at: usize) -> usize {
    content[..at].matches('\n').count() + 1
}

fn numbered(lines: &[&str], first: usize) -> String {
    let lines: Vec<_> =
        lines.iter().enumerate().map(|(at, line)| format!("{:6}\t{line}", first + at)).collect();
    lines.join("\n")
}

fn missing(target: &Target, field: &str, command: &str) -> Failure {
    target.refused(Kind::NoMatch, format!("{field} is required for {command}"))
}

fn result(
    target: &Target,
    output: String,
    prev_exist: bool,
    old: Option<String>,
    new: Option<String>,
) -> EditResult {
    EditResult {
        output,
        error: None,
        path: target.text.clone(),
        prev_exist,
        old_content: old,
        new_content: new,
        metadata: None,
    }
}
