//! Walking a directory: every entry once, in bounded number, without following links below the root.
//!
//! Directories are read where they are and nothing is asked of the kernel that the directory does not say itself.
//! Paths lie behind one another in one piece of memory: a hundred thousand of them are one allocation that grows.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Threads of one walk. A sandbox rarely has more cores, and other calls want some.
pub(crate) const THREADS: usize = 2;
/// Directories that are known and not read yet. Beyond that the walk is incomplete, and says so.
const PENDING: usize = 200_000;
/// Bytes of directory entries taken from the kernel at once.
const BUFFER: usize = 32 * 1024;
const STACK: usize = 256 * 1024;

/// What is walked.
pub(crate) struct Walk<'a> {
    pub(crate) root: &'a Path,
    /// How far below the root. `None`: all of it.
    pub(crate) depth: Option<usize>,
    /// Names that begin with a dot too.
    pub(crate) hidden: bool,
    /// Size and time of what is kept are asked for.
    pub(crate) facts: bool,
    /// Entries that are kept at most.
    pub(crate) limit: usize,
    /// Entries that are left out, with all below them.
    pub(crate) pruned: Option<&'a (dyn Fn(&Seen<'_>) -> bool + Sync)>,
}

/// What a directory says of one of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// An entry that may be kept.
pub(crate) struct Seen<'a> {
    /// Below the root of the walk.
    pub(crate) relative: &'a Path,
    pub(crate) path: &'a Path,
    pub(crate) kind: EntryKind,
}

/// Size and time of an entry, not of what it links to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// An entry that was kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    start: usize,
    length: usize,
    pub(crate) is_directory: bool,
    pub(crate) facts: Option<Facts>,
}

/// What was kept, in the order of the paths' bytes.
#[derive(Debug, Default)]
pub(crate) struct Found {
    paths: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    /// There was more.
    pub(crate) truncated: bool,
    /// Directories that could not be read.
    pub(crate) unreadable: usize,
}

impl Seen<'_> {
    /// A file, or a link to one.
    pub(crate) fn leads_to_file(&self) -> bool {
        match self.kind {
            EntryKind::File => true,
            EntryKind::Link => std::fs::metadata(self.path).is_ok_and(|metadata| metadata.is_file()),
            EntryKind::Directory | EntryKind::Other => false,
        }
    }
}

impl Found {
    pub(crate) fn path(&self, entry: &Entry) -> &Path {
        Path::new(OsStr::from_bytes(self.bytes(entry)))
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.paths[entry.start..entry.start + entry.length]
    }

    fn push(&mut self, path: &[u8], is_directory: bool, facts: Option<Facts>) {
        self.entries.push(Entry { start: self.paths.len(), length: path.len(), is_directory, facts });
        self.paths.extend_from_slice(path);
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        // Stable, because it makes use of the parts that are sorted already.
        entries.sort_by(|a, b| self.bytes(a).cmp(self.bytes(b)));
        self.entries = entries;
    }

    fn join(&mut self, other: &Self) {
        let shift = self.paths.len();
        self.paths.extend_from_slice(&other.paths);
        self.entries.extend(other.entries.iter().map(|entry| Entry { start: entry.start + shift, ..*entry }));
        self.truncated |= other.truncated;
        self.unreadable += other.unreadable;
    }
}

/// Directories still to be read, and how many threads may find more.
struct Agenda {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

struct Waiting {
    /// Path and depth. The newest is read first, which keeps the list short.
    directories: Vec<(Vec<u8>, usize)>,
    reading: usize,
    kept: usize,
    dropped: bool,
}

impl Agenda {
    /// The next directory to read. Blocks while another thread may still find one.
    fn next(&self) -> Option<(Vec<u8>, usize)> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(next) = waiting.directories.pop() {
                waiting.reading += 1;
                return Some(next);
            }
            if waiting.reading == 0 {
                return None;
            }
            self.news.wait(&mut waiting);
        }
    }

    /// One directory is read: what was found in it. `false`: enough was kept.
    fn done(&self, below: &mut Vec<(Vec<u8>, usize)>, kept: usize, limit: usize) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.reading -= 1;
        waiting.kept += kept;
        let space = PENDING.saturating_sub(waiting.directories.len());
        if below.len() > space {
            below.truncate(space);
            waiting.dropped = true;
        }
        waiting.directories.append(below);
        let enough = waiting.kept > limit;
        if enough {
            waiting.directories.clear();
        }
        self.news.notify_all();
        !enough
    }
}

/// Walks and keeps what `wanted` picks; it says whether the entry counts as a directory.
/// What cannot be read is left out and counted.
pub(crate) fn collect(walk: &Walk<'_>, wanted: impl Fn(&Seen<'_>) -> Option<bool> + Sync) -> Found {
    let root = walk.root.as_os_str().as_bytes().to_vec();
    let waiting = Waiting { directories: vec![(root, 0)], reading: 0, kept: 0, dropped: false };
    let agenda = Agenda { waiting: Mutex::new(waiting), news: Condvar::new() };
    let mut found = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..THREADS)
            .filter_map(|_| {
                // Without threads to be had (a fork bomb) this one does it alone.
                let builder = std::thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, || read_all(walk, &agenda, &wanted)).ok()
            })
            .collect();
        let mut found = read_all(walk, &agenda, &wanted);
        for helper in helpers {
            match helper.join() {
                Ok(more) => found.join(&more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.sort();
    found.truncated = agenda.waiting.into_inner().dropped || found.entries.len() > walk.limit;
    found.entries.truncate(walk.limit);
    found
}

/// Puts a reader's directory back into the count, also when `wanted` panics: the others would wait for ever.
struct Reading<'a> {
    agenda: &'a Agenda,
    below: Vec<(Vec<u8>, usize)>,
    kept: usize,
    limit: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.agenda.done(&mut self.below, self.kept, self.limit);
    }
}

fn read_all(walk: &Walk<'_>, agenda: &Agenda, wanted: &(impl Fn(&Seen<'_>) -> Option<bool> + Sync)) -> Found {
    let mut found = Found::default();
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    while let Some((directory, depth)) = agenda.next() {
        let mut reading = Reading { agenda, below: Vec::new(), kept: 0, limit: walk.limit };
        let before = found.entries.len();
        match open(&directory, depth) {
            Ok(fd) => {
                read_one(walk, &fd, (directory, depth), &mut buffer, wanted, &mut found, &mut reading.below);
            }
            // It was removed meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => found.unreadable += 1,
        }
        reading.kept = found.entries.len() - before;
    }
    found.sort();
    found
}

fn open(directory: &[u8], depth: usize) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if depth > 0 {
        flags |= OFlags::NOFOLLOW;
    }
    rustix::fs::open(directory, flags, Mode::empty())
}

fn read_one(
    walk: &Walk<'_>,
    fd: &OwnedFd,
    (mut path, depth): (Vec<u8>, usize),
    buffer: &mut [MaybeUninit<u8>],
    wanted: &impl Fn(&Seen<'_>) -> Option<bool>,
    found: &mut Found,
    below: &mut Vec<(Vec<u8>, usize)>,
) {
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    let (prefix, root) = (path.len(), root_length(walk.root));
    let deeper = walk.depth.is_none_or(|most| depth + 1 < most);
    let mut reader = RawDir::new(fd, buffer);
    while let Some(Ok(entry)) = reader.next() {
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || (!walk.hidden && name.starts_with(b".")) {
            continue;
        }
        path.truncate(prefix);
        path.extend_from_slice(name);
        let Some(kind) = kind_of(entry.file_type(), fd, entry.file_name()) else { continue };
        let seen = Seen {
            relative: Path::new(OsStr::from_bytes(&path[root..])),
            path: Path::new(OsStr::from_bytes(&path)),
            kind,
        };
        if walk.pruned.is_some_and(|pruned| pruned(&seen)) {
            continue;
        }
        if let Some(is_directory) = wanted(&seen) {
            let facts = if walk.facts { facts(fd, entry.file_name()) } else { None };
            found.push(&path, is_directory, facts);
            if found.entries.len() > walk.limit {
                return;
            }
        }
        if deeper && kind == EntryKind::Directory {
            below.push((path.clone(), depth + 1));
        }
    }
}

/// Bytes of a path before what is below the root.
fn root_length(root: &Path) -> usize {
    let root = root.as_os_str().as_bytes();
    if root.ends_with(b"/") { root.len() } else { root.len() + 1 }
}

/// Few file systems leave the kind out of their directories; then the entry is asked.
fn kind_of(kind: rustix::fs::FileType, directory: &OwnedFd, name: &CStr) -> Option<EntryKind> {
    use rustix::fs::FileType as Kind;
    let kind = match kind {
        Kind::Unknown => {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Kind::from_raw_mode(stat.st_mode)
        }
        known => known,
    };
    Some(match kind {
        Kind::RegularFile => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    })
}

fn facts(directory: &OwnedFd, name: &CStr) -> Option<Facts> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs());
    let whole =
        if stat.st_mtime < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let nanoseconds = Duration::from_nanos(stat.st_mtime_nsec);
    let modified = whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH);
    Some(Facts { size: u64::try_from(stat.st_size).unwrap_or(0), modified })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use proptest::prelude::*;

    fn all(root: &Path, depth: Option<usize>, hidden: bool, limit: usize) -> (Vec<String>, bool) {
        let found = collect(&Walk { root, depth, hidden, facts: true, limit, pruned: None }, |_| Some(false));
        assert!(found.entries.iter().all(|entry| entry.facts.is_some()));
        let relative = |entry| found.path(entry).strip_prefix(root).unwrap().to_string_lossy().into_owned();
        (found.entries.iter().map(relative).collect(), found.truncated)
    }

    #[test]
    fn links_are_entries_and_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "x").unwrap();
        symlink(root.path(), root.path().join("a/loop")).unwrap();
        symlink("nowhere", root.path().join(".broken")).unwrap();
        assert_eq!(all(root.path(), None, true, 9).0, [".broken", "a", "a/b", "a/b/file", "a/loop"]);
        assert_eq!(all(root.path(), Some(2), false, 9).0, ["a", "a/b", "a/loop"]);
        // The root itself may be a link.
        assert_eq!(all(&root.path().join("a/loop"), Some(1), false, 9).0, ["a"]);
        assert_eq!(all(&root.path().join("none"), None, true, 9), (vec![], false));
    }

    #[test]
    fn more_than_the_limit_is_said() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..20 {
            std::fs::create_dir_all(root.path().join(format!("d{number}/x"))).unwrap();
        }
        assert!(!all(root.path(), None, true, 40).1);
        let (few, truncated) = all(root.path(), None, true, 39);
        assert_eq!((few.len(), truncated), (39, true));
    }

    #[test]
    fn a_panic_reaches_the_caller_instead_of_stopping_the_walk() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("d")).unwrap();
        let walk =
            Walk { root: root.path(), depth: None, hidden: true, facts: false, limit: 9, pruned: None };
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            collect(&walk, |_| panic!("wanted")).entries.len()
        }));
        assert!(walked.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_entry_is_found_once_and_in_order(paths in proptest::collection::btree_set("[a-c]{1,2}(/[a-c.]{1,2}){0,3}", 0..30)) {
            let root = tempfile::tempdir().unwrap();
            for path in &paths {
                let _ = std::fs::create_dir_all(root.path().join(path));
            }
            let mut expected: Vec<_> = ignore::WalkBuilder::new(root.path())
                .standard_filters(false)
                .build()
                .map(|entry| entry.unwrap().path().strip_prefix(root.path()).unwrap().to_string_lossy().into_owned())
                .filter(|path| !path.is_empty())
                .collect();
            expected.sort();
            prop_assert_eq!(all(root.path(), None, true, 1000).0, expected);
        }
    }
}
