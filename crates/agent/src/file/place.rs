//! Where a path leads: a directory that is held open, and a name in it that is no link.
//!
//! New content is put beside the old and takes its name. For that the name must be the file's own: a link that was
//! renamed over would be a link no more.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::failure::{Failure, Kind};
use super::paths::Target;

/// Links followed to one file; the kernel follows as many.
const LINKS: usize = 40;

/// The directory and name behind a path.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    /// The directory and name as a path, for what has to be named.
    pub(super) path: PathBuf,
}

/// What stands at a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Place {
    /// Follows the links of `target`'s last name. Missing directories are made.
    pub(super) fn of(target: &Target) -> Result<Self, Failure> {
        let mut path = target.path.clone();
        for _ in 0..LINKS {
            let Some(name) = path.file_name() else {
                return Err(target.refused(Kind::InvalidTarget, "it is a directory"));
            };
            let parent = path.parent().unwrap_or(Path::new("/"));
            let directory = directory(parent).map_err(|error| target.failed(&error))?;
            match rustix::fs::readlinkat(&directory, name, Vec::new()) {
                Ok(link) => path = parent.join(OsStr::from_bytes(link.as_bytes())),
                // No link, or nothing yet.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(Self { directory, path }),
                Err(error) => return Err(target.failed(&error.into())),
            }
        }
        Err(target.failed(&Errno::LOOP.into()))
    }

    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// What stands at the name now, and whether something is mounted on it.
    pub(super) fn occupant(&self) -> io::Result<(Identity, bool)> {
        let wanted = StatxFlags::INO;
        let found = rustix::fs::statx(&self.directory, self.name(), AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
        let mounted = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Ok((Identity { device, inode: found.stx_ino }, mounted))
    }

    /// Waits for the calls of this agent that change the same file, so that none works on what another replaces.
    pub(super) fn turn(&self) -> MutexGuard<'static, ()> {
        /// Two files rarely share one, and then only wait.
        static TURNS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];
        let directory = rustix::fs::fstat(&self.directory).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((directory, self.name()));
        TURNS[usize::try_from(hash % 64).unwrap_or(0)].lock()
    }
}

/// Opens a directory, and makes it and those above when they are missing.
fn directory(path: &Path) -> io::Result<OwnedFd> {
    let open = || rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            std::fs::create_dir_all(path)?;
            Ok(open()?)
        }
        other => Ok(other?),
    }
}

/// A regular file that is there before it is written.
pub(super) struct Old {
    /// An error: it cannot be written where it is, but another file may take its name.
    pub(super) file: io::Result<File>,
    pub(super) metadata: Metadata,
    path: PathBuf,
}

impl Old {
    /// Opens what `target` names, without a change to it. `None`: nothing is there.
    pub(super) fn open(target: &Target) -> Result<Option<Self>, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
        match options.open(&target.path) {
            Ok(file) => {
                // Only a regular file is written: what a pipe or device does with it is its own.
                let metadata = target.require_regular(&file)?;
                Ok(Some(Self { file: Ok(file), metadata, path: target.path.clone() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => match std::fs::metadata(&target.path) {
                Ok(metadata) if metadata.is_file() && may_be_replaced(&error, &metadata) => {
                    Ok(Some(Self { file: Err(error), metadata, path: target.path.clone() }))
                }
                _ => Err(target.failed(&error)),
            },
        }
    }

    /// Calls `read` with the file open for reading what belongs to it besides content, if that can be had.
    pub(super) fn with_readable(&self, read: impl FnOnce(&File) -> Result<(), Errno>) -> Result<(), Errno> {
        match &self.file {
            Ok(file) => read(file),
            Err(_) => File::open(&self.path).map_or(Ok(()), |file| read(&file)),
        }
    }

    /// It belongs to somebody else, and cannot be written for that reason.
    pub(super) fn is_of_another(&self) -> bool {
        self.file.is_err() && self.metadata.uid() != rustix::process::geteuid().as_raw()
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { device: self.metadata.dev(), inode: self.metadata.ino() }
    }
}

/// A file that cannot be written may still give way to another one where its directory allows it: a program that
/// runs, or a file of somebody else. One that nobody may write, its owner neither, is meant to stay.
fn may_be_replaced(error: &io::Error, metadata: &Metadata) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::TXTBSY) => true,
        Some(Errno::ACCESS | Errno::PERM) => {
            metadata.uid() != rustix::process::geteuid().as_raw() && metadata.mode() & 0o222 != 0
        }
        _ => false,
    }
}
