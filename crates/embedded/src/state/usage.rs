//! How much room files take.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat, statvfs};
use rustix::io::Errno;

/// How many levels are entered. What lies deeper counts with its directory alone; a sandbox that hides its
/// files there is bounded by the file system itself.
const MAX_DEPTH: usize = 128;
/// How many files are looked at. So many small ones take their room in the file system's own tables.
const MAX_FILES: u64 = 2_000_000;

/// Bytes in use on the file system that holds the path.
pub(crate) fn of_file_system(path: &Path) -> io::Result<u64> {
    let status = statvfs(path)?;
    Ok(status.f_blocks.saturating_sub(status.f_bfree).saturating_mul(status.f_frsize))
}

/// Bytes that the files below a directory take; no more than something above `enough` is counted. A directory
/// that is not there takes none.
pub(crate) fn of_tree(directory: &Path, enough: u64) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut count = Count { bytes: 0, files: 0, enough };
    count.directory(top, 0)?;
    Ok(if count.files > MAX_FILES { u64::MAX } else { count.bytes })
}

struct Count {
    bytes: u64,
    files: u64,
    enough: u64,
}

impl Count {
    fn is_enough(&self) -> bool {
        self.bytes > self.enough || self.files > MAX_FILES
    }

    fn directory(&mut self, directory: OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(&directory)? {
            if self.is_enough() {
                return Ok(());
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(status) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.files += 1;
            // Blocks of 512 bytes, whatever the file system's own are; a file with several names counts for each.
            self.bytes = self.bytes.saturating_add(u64::try_from(status.st_blocks).unwrap_or(0) * 512);
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory && depth < MAX_DEPTH {
                // Gone meanwhile, or shut even for us: not counted.
                if let Ok(inner) = open(&directory, name) {
                    self.directory(inner, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

fn open(directory: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(directory.as_fd(), name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("files");
        assert_eq!(of_tree(&files, u64::MAX).unwrap(), 0);
        fs::create_dir_all(files.join("a/b")).unwrap();
        fs::write(files.join("a/b/c"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", files.join("link")).unwrap();
        let size = of_tree(&files, u64::MAX).unwrap();
        assert!((1 << 20..2 << 20).contains(&size), "{size}");
        assert!(of_file_system(directory.path()).unwrap() > 0);
    }

    #[test]
    fn holes_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        fs::File::create(directory.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(of_tree(directory.path(), u64::MAX).unwrap() < 1 << 20);
    }
}
