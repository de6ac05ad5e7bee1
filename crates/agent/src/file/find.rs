//! `find` and `glob`: files whose path below a root matches a pattern.

use std::path::Path;
use std::time::SystemTime;

use globset::{GlobSet, GlobSetBuilder};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::failure::{Failure, Kind};
use super::globs;
use super::limits::ENTRIES;
use super::names;
use super::paths::Target;
use super::walk::{self, Entry, Found, Walk};
use crate::clock;

/// Written as it was found: paths are not copied one by one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FindResult {
    path: String,
    #[serde(serialize_with = "paths")]
    #[schema(value_type = Vec<String>)]
    files: Found,
    /// There are more.
    truncated: bool,
    /// Directories that could not be read.
    pub(crate) unreadable: usize,
}

/// Files (and links to files) whose path relative to the root matches `pattern`, sorted.
pub(crate) fn find(target: &Target, pattern: &str) -> Result<FindResult, Failure> {
    target.require_readable_directory()?;
    let glob = globs::relative_glob(target, pattern)?;
    let depth = globs::depth_of(glob.glob());
    let matcher = one(target, glob)?;
    let walk = Walk { root: &target.path, depth, hidden: true, facts: false, limit: ENTRIES, pruned: None };
    let files = walk::collect(&walk, |seen| {
        (seen.kind != walk::EntryKind::Directory && matcher.is_match(seen.relative) && seen.leads_to_file())
            .then_some(false)
    });
    let (truncated, unreadable) = (files.truncated, files.unreadable);
    Ok(FindResult { path: target.text.clone(), files, truncated, unreadable })
}

/// A set of one: it knows shortcuts for common patterns, which a glob alone has not.
fn one(target: &Target, glob: globset::Glob) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    set.add(glob);
    set.build().map_err(|error| target.refused(Kind::BadPattern, error.to_string()))
}

fn paths<S: Serializer>(found: &Found, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(found.entries.iter().map(|entry| names::shown(found.path(entry))))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SortBy {
    #[default]
    Path,
    Name,
    Size,
    Modified,
    Type,
}

/// What `glob` is asked for.
pub(crate) struct GlobQuery {
    pub(crate) pattern: String,
    pub(crate) exclude: Vec<String>,
    pub(crate) include_hidden: bool,
    pub(crate) files_only: bool,
    pub(crate) include_metadata: bool,
    pub(crate) max_results: usize,
    pub(crate) sort_by: SortBy,
    pub(crate) descending: bool,
}

/// What was found, in the order it is told.
#[derive(Debug)]
struct Files {
    found: Found,
    with_metadata: bool,
}

#[derive(Serialize, ToSchema)]
struct GlobFile<'a> {
    path: &'a str,
    name: &'a str,
    is_directory: bool,
    size: Option<u64>,
    /// RFC 3339.
    modified_time: Option<String>,
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.found.entries.len()))?;
        for entry in &self.found.entries {
            let path = self.found.path(entry);
            let facts = entry.facts.filter(|_| self.with_metadata);
            list.serialize_element(&GlobFile {
                path: &names::shown(path),
                name: &names::shown(path.file_name().unwrap_or_default()),
                is_directory: entry.is_directory,
                size: facts.map(|facts| facts.size),
                modified_time: facts.map(|facts| clock::iso(facts.modified)),
            })?;
        }
        list.end()
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GlobResult {
    path: String,
    pattern: String,
    #[schema(value_type = Vec<GlobFile<'static>>)]
    files: Files,
    /// How many there are; there may be fewer in `files`.
    total_count: usize,
    truncated: bool,
    /// Directories that could not be read.
    pub(crate) unreadable: usize,
}

pub(crate) fn glob(target: &Target, query: &GlobQuery) -> Result<GlobResult, Failure> {
    target.require_readable_directory()?;
    let glob = globs::relative_glob(target, &query.pattern)?;
    let depth = globs::depth_of(glob.glob());
    let matcher = one(target, glob)?;
    let excluded = globs::choice(target, &[], &query.exclude)?;
    let is_excluded = |seen: &walk::Seen<'_>| {
        excluded.matched(seen.path, seen.kind == walk::EntryKind::Directory).is_ignore()
    };
    // A pattern that names something hidden asks for it.
    let hidden =
        query.include_hidden || query.pattern.split('/').any(|part| part.starts_with('.') && part.len() > 2);
    let facts = query.include_metadata || matches!(query.sort_by, SortBy::Size | SortBy::Modified);
    let pruned: &(dyn Fn(&walk::Seen<'_>) -> bool + Sync) = &is_excluded;
    let pruned = (!excluded.is_empty()).then_some(pruned);
    let walk = Walk { root: &target.path, depth, hidden, facts, limit: ENTRIES, pruned };
    let mut found = walk::collect(&walk, |seen| {
        let is_directory = seen.kind == walk::EntryKind::Directory;
        if (query.files_only && is_directory) || !matcher.is_match(seen.relative) {
            return None;
        }
        if query.files_only { seen.leads_to_file().then_some(false) } else { Some(is_directory) }
    });
    let total_count = found.entries.len();
    sort(&mut found, query);
    let truncated = found.truncated || total_count > query.max_results;
    let unreadable = found.unreadable;
    found.entries.truncate(query.max_results);
    Ok(GlobResult {
        path: target.text.clone(),
        pattern: query.pattern.clone(),
        files: Files { found, with_metadata: query.include_metadata },
        total_count,
        truncated,
        unreadable,
    })
}

/// Sorts what is in the order of paths; what is equal stays in it.
fn sort(found: &mut Found, query: &GlobQuery) {
    let mut entries = std::mem::take(&mut found.entries);
    let name = |entry: &Entry| Path::file_name(found.path(entry)).map(std::ffi::OsStr::to_owned);
    match query.sort_by {
        SortBy::Path | SortBy::Type => {}
        SortBy::Name => entries.sort_by_cached_key(name),
        SortBy::Size => entries.sort_by_key(|entry| entry.facts.map(|facts| facts.size)),
        SortBy::Modified => entries.sort_by_key(modified),
    }
    if query.descending {
        entries.reverse();
    }
    found.entries = entries;
}

fn modified(entry: &Entry) -> Option<SystemTime> {
    entry.facts.map(|facts| facts.modified)
}
