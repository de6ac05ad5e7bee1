//! The kernel's side of a watcher.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::{KEPT, Watcher};
use crate::file::beside;
use crate::shell::terminal::watch_descriptor;

/// Directories one watcher follows.
const MAX_DIRECTORIES: usize = 16_384;

/// The kernel's side of a watcher: which directory each of its numbers means.
pub(super) struct Directories {
    fd: AsyncFd<OwnedFd>,
    paths: HashMap<i32, PathBuf>,
}

impl Directories {
    pub(super) fn new() -> std::io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd: watch_descriptor(fd)?, paths: HashMap::new() })
    }

    /// Watches the root of `watcher` and, when `deep`, the directories below.
    pub(super) fn begin(&mut self, watcher: &Watcher, deep: bool) -> std::io::Result<()> {
        let root = &watcher.root;
        match root.parent() {
            Some(parent) if !std::fs::metadata(root)?.is_dir() => {
                let _ = watcher.only.set(root.clone());
                self.add(watcher, parent, false)
            }
            _ => self.add(watcher, root, deep),
        }
    }

    /// Watches `path` and, when `deep`, the directories below. What cannot be watched is left out.
    fn add(&mut self, watcher: &Watcher, path: &Path, deep: bool) -> std::io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB;
        let number = inotify::add_watch(self.fd.get_ref(), path, flags)?;
        self.paths.insert(number, path.to_path_buf());
        if !deep || !path.is_dir() {
            return Ok(());
        }
        for entry in std::fs::read_dir(path)?.filter_map(Result::ok) {
            let below = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory
                && !watcher.leaves_out(&below, true)
                && !watcher.leaves_out(&below.join("x"), false)
                && self.paths.len() < MAX_DIRECTORIES
            {
                let _ = self.add(watcher, &below, true);
            }
        }
        Ok(())
    }

    /// Reads what the kernel has to tell. An error of kind `WouldBlock`: nothing more.
    fn read(&mut self, watcher: &Watcher, pending: &mut Pending) -> std::io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut found = Vec::new();
        {
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                let event = reader.next()?;
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                found.push((event.wd(), event.events(), event.cookie(), name));
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        for (number, flags, cookie, name) in found {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                watcher.log.lock().overflowed = true;
                continue;
            }
            let Some(directory) = self.paths.get(&number) else { continue };
            let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
            let is_dir = flags.contains(ReadFlags::ISDIR);
            let deep = watcher.recursive && watcher.only.get().is_none();
            if is_dir && deep && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                let _ = self.add(watcher, &path, true);
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.paths.remove(&number);
            } else {
                pending.note(flags, path, cookie, is_dir);
            }
        }
        Ok(())
    }
}

/// Changes gathered until the debounce time is over: several of one kind to one path are one event.
#[derive(Default)]
struct Pending {
    changes: Vec<(&'static str, PathBuf, Option<PathBuf>, bool)>,
    moved_from: HashMap<u32, PathBuf>,
    due: Option<Instant>,
}

impl Pending {
    fn note(&mut self, flags: ReadFlags, path: PathBuf, cookie: u32, is_dir: bool) {
        let mut old = None;
        let kind = if flags.contains(ReadFlags::MOVED_FROM) {
            self.moved_from.insert(cookie, path);
            return;
        } else if is_unfinished(&path) || (!flags.intersects(NAMED) && has_no_name(&path)) {
            return;
        } else if flags.contains(ReadFlags::MOVED_TO) {
            old = self.moved_from.remove(&cookie);
            match old.as_ref().map(|old| old.file_name().and_then(beside::meaning_of)) {
                // A file of ours that was put beside and is whole now.
                Some(Some(meaning)) => {
                    old = None;
                    meaning
                }
                Some(None) => "rename",
                None => "create",
            }
        } else if flags.contains(ReadFlags::CREATE) {
            "create"
        } else if flags.contains(ReadFlags::DELETE) {
            "remove"
        } else if flags.contains(ReadFlags::ATTRIB) {
            "chmod"
        } else {
            "write"
        };
        let known = self.changes.iter().any(|(k, p, _, _)| *k == kind && *p == path);
        if !known && self.changes.len() < KEPT {
            self.changes.push((kind, path, old, is_dir));
        }
    }

    fn flush(&mut self, watcher: &Watcher) {
        self.due = None;
        let gone = self
            .moved_from
            .drain()
            .filter(|(_, path)| !is_unfinished(path))
            .map(|(_, path)| ("remove", path, None, false));
        for (kind, path, old, is_dir) in self.changes.drain(..).chain(gone.collect::<Vec<_>>()) {
            if watcher.wants(&path) {
                watcher.record(kind, &path, old.as_deref(), is_dir);
            }
        }
    }
}

/// Changes of names, as against changes of files.
const NAMED: ReadFlags = ReadFlags::CREATE.union(ReadFlags::DELETE).union(ReadFlags::MOVED_TO);

/// The kernel tells of files without a name too, as `#` and a number. No such file is there.
fn has_no_name(path: &Path) -> bool {
    let name = path.file_name().map_or(b"".as_slice(), OsStrExt::as_bytes);
    let digits = name.strip_prefix(b"#").unwrap_or_default();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && path.symlink_metadata().is_err()
}

/// A file of ours that is not whole yet is nobody's business.
fn is_unfinished(path: &Path) -> bool {
    path.file_name().and_then(beside::meaning_of).is_some()
}

pub(super) async fn follow(watcher: Arc<Watcher>, mut directories: Directories) {
    let mut pending = Pending::default();
    // Ends when the watcher was stopped: then only this task and nobody else holds it.
    let mut stopped = watcher.newest.subscribe();
    while Arc::strong_count(&watcher) > 1 {
        let due = pending.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        tokio::select! {
            ready = directories.fd.readable() => {
                let Ok(mut guard) = ready else { return };
                guard.clear_ready();
                drop(guard);
                while directories.read(&watcher, &mut pending).is_ok() {}
                let quiet = Instant::now() + watcher.debounce;
                if !pending.changes.is_empty() || !pending.moved_from.is_empty() {
                    pending.due.get_or_insert(quiet);
                }
            }
            () = tokio::time::sleep_until(due) => pending.flush(&watcher),
            _ = stopped.changed() => {}
        }
    }
}
