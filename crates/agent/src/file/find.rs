//! `find` and `glob`: files whose path below a root matches a pattern.

use std::fs::Metadata;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::limits::ENTRIES;
use super::paths::Target;
use super::walk;
use crate::clock;

#[derive(Debug, Serialize)]
pub(crate) struct FindResult {
    path: String,
    files: Vec<String>,
    truncated: bool,
}

/// Files (and links to files) whose path relative to the root matches `pattern`, sorted.
pub(crate) fn find(target: &Target, pattern: &str) -> Result<FindResult, Failure> {
    target.require_directory()?;
    let glob = walk::relative_glob(target, pattern)?;
    let matcher = glob.compile_matcher();
    let wanted = |path: &Path, kind: &std::fs::FileType| {
        let relative = path.strip_prefix(&target.path).ok()?;
        (!kind.is_dir() && matcher.is_match(relative) && leads_to_file(path, kind)).then_some(false)
    };
    let (entries, truncated) =
        walk::collect(&target.path, walk::depth_of(glob.glob()), true, ENTRIES, wanted);
    let mut files: Vec<_> = entries.iter().map(|entry| entry.path.to_string_lossy().into_owned()).collect();
    files.sort_unstable();
    Ok(FindResult { path: target.text.clone(), files, truncated })
}

fn leads_to_file(path: &Path, kind: &std::fs::FileType) -> bool {
    kind.is_file() || (kind.is_symlink() && std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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

#[derive(Debug, Serialize)]
pub(crate) struct GlobFile {
    path: String,
    name: String,
    is_directory: bool,
    size: Option<u64>,
    modified_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct GlobResult {
    path: String,
    pattern: String,
    files: Vec<GlobFile>,
    total_count: usize,
    truncated: bool,
}

pub(crate) fn glob(target: &Target, query: &GlobQuery) -> Result<GlobResult, Failure> {
    target.require_directory()?;
    let glob = walk::relative_glob(target, &query.pattern)?;
    let matcher = glob.compile_matcher();
    let excluded = walk::path_globs(target, &query.exclude)?;
    let wanted = |path: &Path, kind: &std::fs::FileType| {
        let relative = path.strip_prefix(&target.path).ok()?;
        if !matcher.is_match(relative) || excluded.is_match(relative) || excluded.is_match(path) {
            return None;
        }
        if query.files_only { leads_to_file(path, kind).then_some(false) } else { Some(kind.is_dir()) }
    };
    // A pattern that names something hidden asks for it.
    let hidden =
        query.include_hidden || query.pattern.split('/').any(|part| part.starts_with('.') && part.len() > 2);
    let depth = walk::depth_of(glob.glob());
    let (entries, overflow) = walk::collect(&target.path, depth, hidden, ENTRIES, wanted);
    let total_count = entries.len();
    let with_metadata = query.include_metadata || matches!(query.sort_by, SortBy::Size | SortBy::Modified);
    let mut files: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let metadata = if with_metadata { std::fs::symlink_metadata(&entry.path).ok() } else { None };
            (entry, metadata)
        })
        .collect();
    files.sort_by(|(a, a_meta), (b, b_meta)| {
        let order = match query.sort_by {
            SortBy::Path | SortBy::Type => std::cmp::Ordering::Equal,
            SortBy::Name => a.path.file_name().cmp(&b.path.file_name()),
            SortBy::Size => size(a_meta).cmp(&size(b_meta)),
            SortBy::Modified => modified(a_meta).cmp(&modified(b_meta)),
        };
        order.then_with(|| a.path.cmp(&b.path))
    });
    if query.descending {
        files.reverse();
    }
    let truncated = overflow || total_count > query.max_results;
    files.truncate(query.max_results);
    let files = files.into_iter().map(|(entry, metadata)| {
        let metadata = metadata.filter(|_| query.include_metadata);
        GlobFile {
            name: entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: entry.path.to_string_lossy().into_owned(),
            is_directory: entry.is_directory,
            size: metadata.as_ref().map(Metadata::len),
            modified_time: metadata.and_then(|metadata| metadata.modified().ok()).map(clock::iso),
        }
    });
    let files = files.collect();
    Ok(GlobResult {
        path: target.text.clone(),
        pattern: query.pattern.clone(),
        files,
        total_count,
        truncated,
    })
}

fn size(metadata: &Option<Metadata>) -> Option<u64> {
    metadata.as_ref().map(Metadata::len)
}

fn modified(metadata: &Option<Metadata>) -> Option<std::time::SystemTime> {
    metadata.as_ref().and_then(|metadata| metadata.modified().ok())
}
