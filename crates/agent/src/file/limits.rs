//! How much one file call may take or give.

/// Bytes of text one `read` returns. Larger files are read in ranges or downloaded.
pub(crate) const READ_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a file that is edited in memory (`replace`, `str_replace_editor`).
pub(crate) const EDIT_BYTES: u64 = 64 * 1024 * 1024;
/// Entries `find` and `list` return.
pub(crate) const ENTRIES: usize = 100_000;
/// Bytes of matching text one `grep` returns.
pub(crate) const GREP_BYTES: usize = 16 * 1024 * 1024;
/// Matches `search` returns.
pub(crate) const SEARCH_MATCHES: usize = 100_000;
