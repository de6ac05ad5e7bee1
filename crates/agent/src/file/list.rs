//! `list`: the entries of a directory.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use utoipa::ToSchema;

use super::failure::Failure;
use super::find::SortBy;
use super::limits::ENTRIES;
use super::names;
use super::paths::Target;
use super::walk::{self, EntryKind, Walk};
use crate::clock;

/// What `list` is asked for.
pub(crate) struct ListQuery {
    pub(crate) recursive: bool,
    pub(crate) show_hidden: bool,
    /// Extensions, with or without the dot; empty for all.
    pub(crate) file_types: Vec<String>,
    pub(crate) max_depth: Option<usize>,
    pub(crate) include_size: bool,
    pub(crate) include_permissions: bool,
    pub(crate) sort_by: SortBy,
    pub(crate) descending: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileInfo {
    name: String,
    path: String,
    is_directory: bool,
    size: Option<u64>,
    modified_time: Option<String>,
    permissions: Option<String>,
    extension: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListResult {
    path: String,
    files: Vec<FileInfo>,
    total_count: usize,
    directory_count: usize,
    file_count: usize,
    truncated: bool,
    /// Directories that could not be read.
    pub(crate) unreadable: usize,
}

impl ListResult {
    /// The paths alone, in order.
    pub(crate) fn paths(self) -> Vec<String> {
        self.files.into_iter().map(|file| file.path).collect()
    }
}

pub(crate) fn list(target: &Target, query: &ListQuery) -> Result<ListResult, Failure> {
    target.require_readable_directory()?;
    let depth = if query.recursive { query.max_depth } else { Some(1) };
    let types: Vec<_> =
        query.file_types.iter().map(|kind| kind.trim_start_matches('.').to_ascii_lowercase()).collect();
    let wanted = |seen: &walk::Seen<'_>| {
        let path = seen.path;
        let is_directory =
            seen.kind == EntryKind::Directory || (seen.kind == EntryKind::Link && path.is_dir());
        let fits =
            types.is_empty() || is_directory || extension(path).is_some_and(|ext| types.contains(&ext));
        fits.then_some(is_directory)
    };
    let walk = Walk {
        root: &target.path,
        depth,
        hidden: query.show_hidden,
        facts: false,
        limit: ENTRIES,
        pruned: None,
    };
    let found = walk::collect(&walk, wanted);
    let (truncated, unreadable) = (found.truncated, found.unreadable);
    let mut files: Vec<_> =
        found.entries.iter().map(|entry| info(found.path(entry), entry.is_directory, query)).collect();
    files.sort_by(|a, b| {
        let order = match query.sort_by {
            SortBy::Name => a.name.cmp(&b.name),
            SortBy::Size => a.size.cmp(&b.size),
            SortBy::Modified => a.modified_time.cmp(&b.modified_time),
            SortBy::Type => (!a.is_directory, &a.extension).cmp(&(!b.is_directory, &b.extension)),
            SortBy::Path => std::cmp::Ordering::Equal,
        };
        order.then_with(|| a.path.cmp(&b.path))
    });
    if query.descending {
        files.reverse();
    }
    let directory_count = files.iter().filter(|file| file.is_directory).count();
    let total_count = files.len();
    let file_count = total_count - directory_count;
    if !query.include_size {
        files.iter_mut().for_each(|file| file.size = None);
    }
    Ok(ListResult {
        path: target.text.clone(),
        files,
        total_count,
        directory_count,
        file_count,
        truncated,
        unreadable,
    })
}

fn info(path: &Path, is_directory: bool, query: &ListQuery) -> FileInfo {
    let metadata = std::fs::symlink_metadata(path).ok();
    let permissions = metadata.as_ref().filter(|_| query.include_permissions).map(permissions);
    FileInfo {
        name: names::shown(path.file_name().unwrap_or_default()).into_owned(),
        path: names::shown(path).into_owned(),
        is_directory,
        size: metadata.as_ref().filter(|_| !is_directory).map(std::fs::Metadata::len),
        modified_time: metadata.and_then(|metadata| metadata.modified().ok()).map(clock::iso),
        permissions,
        extension: if is_directory { None } else { extension(path).map(|ext| format!(".{ext}")) },
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().map(|extension| names::shown(extension).to_ascii_lowercase())
}

/// As `ls -l` writes them.
fn permissions(metadata: &std::fs::Metadata) -> String {
    let kind = metadata.file_type();
    let first = if kind.is_dir() {
        'd'
    } else if kind.is_symlink() {
        'l'
    } else if kind.is_fifo() {
        'p'
    } else if kind.is_socket() {
        's'
    } else if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        '-'
    };
    let mode = metadata.permissions().mode();
    let bits = (0..9).map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { ['r', 'w', 'x'][bit % 3] });
    std::iter::once(first).chain(bits).collect()
}
