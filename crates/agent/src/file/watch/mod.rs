//! `/v1/file/watch`: what changes below a directory, told by inotify.
//!
//! ```text
//!   routes    creating, polling, streaming, stopping
//!   follow    the kernel's side: directories, and changes gathered until they are quiet
//! ```
//! Here: a watcher, and the events it keeps for those who ask.

mod follow;
mod routes;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use globset::GlobSet;
use ignore::overrides::Override;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::clock;
use crate::file::{globs, names};

pub(crate) use routes::{CreateRequest, PollRequest, WaitRequest, router};

/// Events one watcher keeps for those who poll; older ones are lost, and the answer says so.
const KEPT: usize = 4096;

#[derive(Debug, Clone, Serialize)]
struct Event {
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    relative_path: String,
    old_path: Option<String>,
    is_dir: bool,
    timestamp: String,
    mtime: Option<i64>,
    size: Option<u64>,
    inode: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Watches {
    by_id: Mutex<BTreeMap<String, Arc<Watcher>>>,
}

struct Watcher {
    id: String,
    root: PathBuf,
    /// The root, when it is a file.
    only: OnceLock<PathBuf>,
    recursive: bool,
    excluded: Override,
    included: GlobSet,
    debounce: Duration,
    log: Mutex<Log>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    last: u64,
    overflowed: bool,
}

impl Watcher {
    fn since(&self, cursor: u64, limit: usize) -> (Vec<Event>, u64, bool) {
        let log = self.log.lock();
        let oldest = log.events.front().map_or(log.last + 1, |event| event.seq);
        let lost = cursor + 1 < oldest || log.overflowed;
        let events: Vec<_> =
            log.events.iter().filter(|event| event.seq > cursor).take(limit).cloned().collect();
        let next = events.last().map_or(cursor.min(log.last), |event| event.seq);
        (events, next, lost)
    }

    fn describe(&self) -> serde_json::Value {
        json!({
            "watcher_id": self.id, "path": names::shown(&self.root), "recursive": self.recursive,
            "debounce": u64::try_from(self.debounce.as_millis()).unwrap_or(0), "cursor": self.log.lock().last,
        })
    }

    fn leaves_out(&self, path: &Path, is_directory: bool) -> bool {
        globs::leaves_out(&self.excluded, &self.root, path, is_directory)
    }

    fn wants(&self, path: &Path) -> bool {
        // Of a file its directory is watched: the file itself is another one after each write.
        let asked_for = self.only.get().is_none_or(|only| only == path);
        asked_for
            && !self.leaves_out(path, false)
            && (self.included.is_empty() || self.included.is_match(path))
    }

    fn record(&self, kind: &'static str, path: &Path, old: Option<&Path>, is_dir: bool) {
        let metadata = std::fs::symlink_metadata(path).ok();
        let mut log = self.log.lock();
        log.last += 1;
        let event = Event {
            seq: log.last,
            kind,
            path: names::shown(path).into_owned(),
            relative_path: names::shown(path.strip_prefix(&self.root).unwrap_or(path)).into_owned(),
            old_path: old.map(|old| names::shown(old).into_owned()),
            is_dir,
            timestamp: clock::iso(SystemTime::now()),
            mtime: metadata.as_ref().map(MetadataExt::mtime),
            size: metadata.as_ref().map(MetadataExt::size),
            inode: metadata.as_ref().map(MetadataExt::ino),
        };
        if log.events.len() == KEPT {
            log.events.pop_front();
        }
        log.events.push_back(event);
        self.newest.send_replace(log.last);
    }
}
