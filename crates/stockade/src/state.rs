//! The state directory as this program uses it: the API key, and which server runs on it. What the embedded
//! backend keeps there is the backend's own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::rand::{GetRandomFlags, getrandom};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const KEY_FILE: &str = "api-key";
const SERVER_FILE: &str = "server.json";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// The most bytes of a key file.
const MAX_KEY_FILE: u64 = 4096;
/// The most bytes of the file about the server.
const MAX_SERVER_FILE: u64 = 4096;

/// Why the state directory or something in it cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the state directory {} belongs to user {owner}, and this is user {us}: choose another with --state-dir or STOCKADE_STATE_DIR", path.display())]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error("others can read the key in {} (mode {mode:03o}): if it may have been read, remove it for a new one, else run chmod 600 {}", path.display(), path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("there is no key in {}: one line of visible ASCII is expected; remove the file and `stockade up` makes a new one", path.display())]
    NoKey { path: PathBuf },
}

/// A state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// The server that runs on a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    /// Where its API is reached from this machine.
    pub(crate) url: String,
    /// Its process.
    pub(crate) pid: i32,
    /// When that process was started, in the kernel's ticks since boot: another process of the same number has
    /// another.
    pub(crate) start_time: u64,
}

impl StateDir {
    /// The directory at this place, which may not be there.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory at this place, made if missing, ours and nobody else's to look into.
    ///
    /// # Errors
    /// When it cannot be made, or is another user's.
    pub(crate) fn make(path: &Path) -> Result<Self, StateError> {
        let io_error = |action| move |source| StateError::Io { action, path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error("make the directory above"))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("make the state directory")(error));
            }
            _ => {}
        }
        let found = fs::metadata(path).map_err(io_error("look at the state directory"))?;
        let us = rustix::process::geteuid().as_raw();
        if found.uid() != us {
            return Err(StateError::Foreign { path: path.to_owned(), owner: found.uid(), us });
        }
        if found.mode() & 0o777 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                .map_err(io_error("close the state directory to others"))?;
        }
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where its key is.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.0.join(KEY_FILE)
    }

    /// The key, made if missing.
    ///
    /// # Errors
    /// When it cannot be written or read, or others can read it.
    pub(crate) fn make_key(&self) -> Result<SecretString, StateError> {
        let path = self.key_file();
        if !path.exists() {
            self.write_key(&path)?;
        }
        let mode = fs::metadata(&path).map_err(|source| io_error("look at", &path, source))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Readable { path, mode });
        }
        read_key(&path)
    }

    /// Writes a new key, whole or not at all; one that another process wrote meanwhile stays.
    fn write_key(&self, path: &Path) -> Result<(), StateError> {
        let draft = self.0.join(format!(".{KEY_FILE}.{}", process::id()));
        let result =
            write_new(&draft, &new_key().map_err(|source| io_error("make a key for", path, source))?);
        let result = result.and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        });
        // It may not be there, and the next draft of this name would say so.
        let _ = fs::remove_file(&draft);
        result.map_err(|source| io_error("write the key", path, source))
    }

    /// Writes down that this process serves here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn record_server(&self, url: &str) -> Result<(), StateError> {
        let pid = process::id().cast_signed();
        let path = self.0.join(SERVER_FILE);
        let record = ServerRecord { url: url.to_owned(), pid, start_time: start_time(pid).unwrap_or(0) };
        let draft = self.0.join(format!(".{SERVER_FILE}.{pid}"));
        let text = serde_json::to_vec(&record).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(&draft, text)).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| io_error("write", &path, source))
    }

    /// Takes back what [`Self::record_server`] wrote, unless another server has begun meanwhile.
    pub(crate) fn forget_server(&self) {
        let ours = self.read_record().is_some_and(|record| record.pid == process::id().cast_signed());
        if ours {
            // Without it, the record names a process that is gone, which readers see.
            let _ = fs::remove_file(self.0.join(SERVER_FILE));
        }
    }

    /// The server that runs here; `None` when the one that was written down is gone.
    pub(crate) fn server(&self) -> Option<ServerRecord> {
        self.read_record().filter(|record| start_time(record.pid) == Some(record.start_time))
    }

    fn read_record(&self) -> Option<ServerRecord> {
        let text = read_bounded(&self.0.join(SERVER_FILE), MAX_SERVER_FILE).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// The key in a file: its one line.
///
/// # Errors
/// When it cannot be read or holds no key.
pub(crate) fn read_key(path: &Path) -> Result<SecretString, StateError> {
    let text =
        read_bounded(path, MAX_KEY_FILE).map_err(|source| io_error("read the key in", path, source))?;
    let key = text.trim_end_matches(['\n', '\r']);
    let is_good = !key.is_empty() && key.bytes().all(|c| c.is_ascii_graphic());
    if is_good { Ok(key.into()) } else { Err(StateError::NoKey { path: path.to_owned() }) }
}

/// When a process was started: field 22 of its `stat`; `None` when it is not there or has ended.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

/// 32 random bytes in hexadecimal, as a line.
fn new_key() -> io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(digits.chain(["\n".to_owned()]).collect())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_bounded(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn directory_and_key_are_the_owner_s_alone() {
        let above = tempfile::tempdir().unwrap();
        let dir = StateDir::make(&above.path().join("a/b")).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        let key = dir.make_key().unwrap();
        assert_eq!(mode(&dir.key_file()), 0o600);
        assert_eq!(key.expose_secret().len(), 2 * KEY_BYTES);
        assert_eq!(dir.make_key().unwrap().expose_secret(), key.expose_secret());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_open_directory_is_closed() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        StateDir::make(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let dir = StateDir::make(above.path()).unwrap();
        dir.make_key().unwrap();
        fs::set_permissions(dir.key_file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(dir.make_key(), Err(StateError::Readable { mode: 0o644, .. })));
    }

    #[test]
    fn a_key_is_one_visible_line() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("key");
        for (content, good) in [("k3y\n", true), ("k3y", true), ("", false), ("\n", false), ("a b\n", false)]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(read_key(&path).is_ok(), good, "{content:?}");
        }
        assert!(matches!(read_key(above.path()), Err(StateError::Io { .. })));
    }

    #[test]
    fn a_server_is_known_while_it_lives() {
        let above = tempfile::tempdir().unwrap();
        let dir = StateDir::at(above.path());
        assert_eq!(dir.server(), None);
        dir.record_server("http://127.0.0.1:1").unwrap();
        assert_eq!(dir.server().unwrap().url, "http://127.0.0.1:1");
        // Another process that got the number of one that ended.
        let record = ServerRecord { start_time: 1, ..dir.server().unwrap() };
        fs::write(dir.path().join(SERVER_FILE), serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(dir.server(), None);
        dir.forget_server();
        assert!(!dir.path().join(SERVER_FILE).exists());
    }
}
