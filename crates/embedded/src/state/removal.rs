//! Removing a directory that a hostile process has filled.
//!
//! Names are never followed: everything happens relative to a descriptor, no symbolic link is resolved, and
//! nothing mounted below is entered. The depth of the tree is the other's choice, ours is not: what lies deeper
//! than some levels is moved to the top and removed from there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat};
use rustix::io::Errno;

/// How many levels are entered before a directory is moved to the top.
const MAX_DEPTH: usize = 32;

/// Removes what lies at `name` in `top`, a directory of ours that holds nothing but what is to be removed.
pub(super) fn remove(top: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    Removal { top, moved: 0 }.entry(top, name, 0)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
}

impl Removal<'_> {
    /// Removes one name, whatever it is.
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth >= MAX_DEPTH {
            return self.move_up(directory, name);
        }
        {
            let inner = open(directory, name)?;
            self.content(&inner, depth + 1)?;
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn content(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
        let entries = Dir::read_from(directory)?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match entry.file_type() {
                FileType::Directory | FileType::Unknown => self.entry(directory.as_fd(), name, depth)?,
                // Spares a question for what is known to be no directory.
                _ => match unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Too deep: beside the tree it was found in, it is at the top.
    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let place = CString::new(format!("deep-{}-{}", std::process::id(), self.moved))
                .map_err(|_| Errno::INVAL)?;
            match renameat(directory, name, self.top, &place) {
                Ok(()) => {}
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => continue,
                Err(error) => return Err(error),
            }
            // The top is emptied entry by entry by whoever called; what was moved there comes in its turn.
            return Ok(());
        }
    }
}

/// Opens a directory that is one, on the same file system.
fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Err(Errno::ACCESS) => {
            // Its owner took its rights away; who may remove it may give them back.
            rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)?;
            openat2(directory, name, flags, Mode::empty(), resolve)
        }
        result => result,
    }
}
