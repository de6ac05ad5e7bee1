//! New content beside the old: a file without a name, or with a hidden one, that takes the old one's name when it is whole.
//!
//! Readers see the old content or the new, and whatever fails before the end has changed nothing. A file without a
//! name is gone with the process; what file systems without such files may keep after a crash is removed when the
//! directory is written to again.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RawDir, RenameFlags, Uid};
use rustix::io::Errno;

use super::attributes;
use super::place::{Old, Place};

/// Names of files that are not whole yet. The first is for content that replaces another.
const WRITES: &str = ".stockade-write-";
const CREATES: &str = ".stockade-create-";
/// An upload may be silent for a minute, so what was not written for ten is nobody's.
const ABANDONED: Duration = Duration::from_secs(600);
/// Entries of a directory looked at for what a crash has left.
const LOOKED_AT: usize = 10_000;
/// Directories that are known to be clean.
const CLEAN: usize = 4_096;

/// What a change is that is told as the renaming of a file of ours: `write` or `create`. `None`: the file is not ours.
pub(crate) fn meaning_of(name: &OsStr) -> Option<&'static str> {
    let name = name.as_bytes();
    if name.starts_with(WRITES.as_bytes()) {
        return Some("write");
    }
    name.starts_with(CREATES.as_bytes()).then_some("create")
}

/// A file beside the one whose name it will take. Dropping it leaves nothing behind.
pub(super) struct Beside {
    directory: OwnedFd,
    pub(super) file: File,
    /// Its own name, if it has one yet.
    name: Option<CString>,
    replaces: bool,
}

/// Why content cannot be put beside.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// The file has what the new one could not be given.
    Lost(&'static str),
    Io(io::Error),
}

impl Obstacle {
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Lost(reason) => (*reason).to_owned(),
            Self::Io(error) => match Errno::from_io_error(error) {
                Some(Errno::NOSPC | Errno::DQUOT) => "there is no room for both contents".to_owned(),
                _ => format!("its directory allows no other file in its place ({error})"),
            },
        }
    }
}

impl From<Errno> for Obstacle {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Beside {
    /// Makes an empty file in the directory of `place`.
    pub(super) fn begin(place: &Place, replaces: bool) -> Result<Self, Obstacle> {
        let directory = place.directory.try_clone().map_err(Obstacle::Io)?;
        remove_leftovers(&directory);
        Ok(Self::made_in(directory, replaces)?)
    }

    /// An empty file that no path leads to, on the file system of `directory`.
    pub(super) fn unnamed(directory: &Path) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Self::made_in(directory, true)?.file.try_clone()
    }

    fn made_in(directory: OwnedFd, replaces: bool) -> Result<Self, Errno> {
        // What replaces a file is nobody else's to read before it has that one's rights.
        let mode = if replaces { Mode::RUSR | Mode::WUSR } else { Mode::from_raw_mode(0o666) };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, name) = match rustix::fs::openat(&directory, ".", flags, mode) {
            Ok(file) => (file, None),
            // Not every file system has files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let name = new_name(replaces);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                (rustix::fs::openat(&directory, &name, flags, mode)?, Some(name))
            }
            Err(error) => return Err(error),
        };
        let beside = Self { directory, file: file.into(), name, replaces };
        if beside.name.is_some() {
            beside.mark_as_used();
        }
        Ok(beside)
    }

    /// Gives it what the file has that it replaces.
    pub(super) fn take_over(&self, old: &Old) -> Result<(), Obstacle> {
        let own = self.file.metadata().map_err(Obstacle::Io)?;
        let (uid, gid) = (old.metadata.uid(), old.metadata.gid());
        if (own.uid(), own.gid()) != (uid, gid) && !old.is_of_another() {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            if rustix::fs::fchown(&self.file, Some(user), Some(group)).is_err() {
                return Err(Obstacle::Lost("it belongs to another user or group"));
            }
        }
        if old.with_readable(|file| attributes::copy(file, &self.file)).is_err() {
            return Err(Obstacle::Lost("its extended attributes cannot be given to another file"));
        }
        self.set_mode(old.metadata.permissions().mode()).map_err(Obstacle::Io)
    }

    /// The rights of a file, without those that a write takes away.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let kept = if rustix::process::geteuid().is_root() { 0o7777 } else { 0o1777 };
        self.file.set_permissions(PermissionsExt::from_mode(mode & kept))
    }

    /// Says to others who look for leftovers that it is none. Not all file systems have such locks; then its age says so.
    fn mark_as_used(&self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive);
    }

    /// Gives it the name of `place`: the content there is the new one from now on.
    pub(super) fn take_name(&mut self, place: &Place) -> io::Result<()> {
        if self.name.is_none() {
            if !self.replaces && self.link(place.name())? {
                return Ok(());
            }
            self.mark_as_used();
            let name = new_name(self.replaces);
            if !self.link(OsStr::from_bytes(name.as_bytes()))? {
                return Err(Errno::EXIST.into());
            }
            self.name = Some(name);
        }
        let Some(name) = &self.name else { return Ok(()) };
        rustix::fs::renameat_with(
            &self.directory,
            name,
            &place.directory,
            place.name(),
            RenameFlags::empty(),
        )?;
        self.name = None;
        Ok(())
    }

    /// Names a file that has none. `false`: the name is taken.
    fn link(&self, name: &OsStr) -> io::Result<bool> {
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(rustix::fs::CWD, from, &self.directory, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

fn new_name(replaces: bool) -> CString {
    let prefix = if replaces { WRITES } else { CREATES };
    // It has no NUL.
    CString::new(format!("{prefix}{}", uuid::Uuid::new_v4().simple())).unwrap_or_default()
}

/// Removes files of agents that were killed, once in each directory.
fn remove_leftovers(directory: &OwnedFd) {
    static SEEN: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);
    let Ok(stat) = rustix::fs::fstat(directory) else { return };
    {
        let mut seen = SEEN.lock();
        let seen = seen.get_or_insert_default();
        if seen.len() >= CLEAN {
            seen.clear();
        }
        if !seen.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(listing) = rustix::fs::openat(directory, ".", flags, Mode::empty()) else { return };
    let mut buffer = vec![MaybeUninit::uninit(); 16 * 1024];
    let mut reader = RawDir::new(&listing, &mut buffer);
    for _ in 0..LOOKED_AT {
        let Some(Ok(entry)) = reader.next() else { return };
        if meaning_of(OsStr::from_bytes(entry.file_name().to_bytes())).is_some() {
            remove_if_abandoned(directory, entry.file_name());
        }
    }
}

fn remove_if_abandoned(directory: &OwnedFd, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) else { return };
    let file = File::from(file);
    let abandoned = match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(Errno::WOULDBLOCK) => false,
        Err(_) => {
            let modified = file.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
        }
    };
    if abandoned && file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
}
