//! How much room files take: those below a directory, and those that have no name any more but are held open.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat, statfs, statvfs,
};
use rustix::io::Errno;

/// What files take, or may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// In blocks of theirs, whatever their length.
    pub(crate) bytes: u64,
    /// Files and directories: each takes a place in the file system's own tables, where there may be few.
    pub(crate) files: u64,
}

impl Room {
    /// So many files a limit of bytes allows: what package managers unpack has more than this on average in each.
    const BYTES_FOR_A_FILE: u64 = 16 << 10;
    /// And at least so many.
    const LEAST_FILES: u64 = 16_384;

    /// What a limit of bytes allows.
    pub(crate) fn within(bytes: u64) -> Self {
        Self { bytes, files: (bytes / Self::BYTES_FOR_A_FILE).max(Self::LEAST_FILES) }
    }

    pub(crate) fn exceeds(&self, limit: &Self) -> bool {
        self.bytes > limit.bytes || self.files > limit.files
    }

    fn add(&mut self, file: &Stat) {
        self.files += 1;
        // Blocks of 512 bytes, whatever the file system's own are; a file with several names counts for each.
        self.bytes = self.bytes.saturating_add(u64::try_from(file.st_blocks).unwrap_or(0) * 512);
    }
}

/// What is in use on the file system that holds the path. Some count no files, and then there are none.
pub(crate) fn of_file_system(path: &Path) -> io::Result<Room> {
    let status = statvfs(path)?;
    let bytes = status.f_blocks.saturating_sub(status.f_bfree).saturating_mul(status.f_frsize);
    Ok(Room { bytes, files: status.f_files.saturating_sub(status.f_ffree) })
}

/// What the files below a directory take; no more than something above `enough` is counted. A directory that is not
/// there takes nothing.
pub(crate) fn of_tree(directory: &Path, enough: &Room) -> io::Result<Room> {
    let top = match rustix::fs::open(directory, DIRECTORY, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(Room::default()),
        Err(error) => return Err(error.into()),
    };
    Walk { taken: Room::default(), enough, levels: Vec::new(), top }.all()
}

/// Through a tree of any depth with two descriptors. Whoever owns the tree may move parts of it meanwhile, so that the
/// way up is checked and nothing above the top is ever entered.
struct Walk<'a> {
    taken: Room,
    enough: &'a Room,
    /// From the top down to the directory that is open.
    levels: Vec<Level>,
    top: OwnedFd,
}

/// A directory whose entries are counted, and what is to be entered of them.
struct Level {
    /// In the directory above.
    name: CString,
    identity: (u64, u64),
    inner: Vec<CString>,
}

impl Walk<'_> {
    fn all(mut self) -> io::Result<Room> {
        let mut here = self.top.try_clone()?;
        self.count(&here, CString::default())?;
        while let Some(level) = self.levels.last_mut() {
            if self.taken.exceeds(self.enough) {
                break;
            }
            if let Some(name) = level.inner.pop() {
                // Gone meanwhile, or shut even for us: not counted.
                if let Ok(inner) = open(here.as_fd(), &name) {
                    self.count(&inner, name)?;
                    here = inner;
                }
            } else {
                self.levels.pop();
                let Some(above) = self.levels.last() else { break };
                here = match open(here.as_fd(), c"..") {
                    Ok(up) if identity(&up).is_ok_and(|found| found == above.identity) => up,
                    _ => self.return_from_the_top()?,
                };
            }
        }
        Ok(self.taken)
    }

    /// Counts the entries of a directory, which becomes the lowest level.
    fn count(&mut self, directory: &OwnedFd, name: CString) -> io::Result<()> {
        let mut inner = Vec::new();
        for entry in Dir::read_from(directory)? {
            if self.taken.exceeds(self.enough) {
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(status) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.taken.add(&status);
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                inner.push(name.to_owned());
            }
        }
        self.levels.push(Level { name, identity: identity(directory)?, inner });
        Ok(())
    }

    /// A directory was moved away with us in it: goes on where it was, as deep as that is still there.
    fn return_from_the_top(&mut self) -> io::Result<OwnedFd> {
        let mut here = self.top.try_clone()?;
        let mut depth = 1;
        for level in self.levels.iter().skip(1) {
            match open(here.as_fd(), &level.name) {
                Ok(inner) if identity(&inner).is_ok_and(|found| found == level.identity) => here = inner,
                _ => break,
            }
            depth += 1;
        }
        self.levels.truncate(depth);
        Ok(here)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a neighbour, below or above, on the same file system.
fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat2(directory, name, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(directory).map(|found| (found.st_dev, found.st_ino))
}

/// More descriptors and mappings than this are not looked at: a sandbox pays for each with memory of its own.
const MOST_LOOKS: usize = 1 << 20;

/// What files take that have no name any more but are held open, or mapped, by these processes. Of those only files in
/// layers count: they are the sandbox's own, while what it has below `/mnt` or in memory is not.
pub(crate) fn of_nameless(processes: &[i32]) -> Room {
    let mut found = Nameless { taken: Room::default(), known: HashSet::new(), looks: 0 };
    for process in processes {
        found.process(&PathBuf::from(format!("/proc/{process}")));
    }
    found.taken
}

struct Nameless {
    taken: Room,
    /// Counted already: one file may be held by many.
    known: HashSet<(u64, u64)>,
    looks: usize,
}

impl Nameless {
    fn process(&mut self, process: &Path) {
        self.links(&process.join("fd"));
        // For root alone; otherwise what is only mapped is not seen.
        self.links(&process.join("map_files"));
        // Threads may have descriptors of their own.
        for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten().skip(1) {
            self.links(&thread.path().join("fd"));
        }
    }

    /// A process that has ended meanwhile holds nothing.
    fn links(&mut self, directory: &Path) {
        for link in fs::read_dir(directory).into_iter().flatten().flatten() {
            self.looks += 1;
            if self.looks > MOST_LOOKS {
                return;
            }
            self.file(&link.path());
        }
    }

    fn file(&mut self, link: &Path) {
        let Ok(status) = statat(CWD, link, AtFlags::empty()) else { return };
        let nameless =
            status.st_nlink == 0 && FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if nameless
            && statfs(link).is_ok_and(|found| found.f_type == OVERLAY)
            && self.known.insert((status.st_dev, status.st_ino))
        {
            self.taken.add(&status);
        }
    }
}

/// `OVERLAYFS_SUPER_MAGIC` of the kernel.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// All processes of the process namespace whose first process this is, itself included: whoever loses its parent there
/// becomes a child of the first.
pub(crate) fn descendants(first: i32) -> Vec<i32> {
    /// No sandbox has more.
    const MOST: usize = 1 << 16;
    let mut all = vec![first];
    let mut next = 0;
    while let Some(process) = all.get(next).copied().filter(|_| all.len() < MOST) {
        next += 1;
        for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::state::tests::mk_deep;

    const NO_END: Room = Room { bytes: u64::MAX, files: u64::MAX };

    fn taken(directory: &Path) -> Room {
        of_tree(directory, &NO_END).unwrap()
    }

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("files");
        assert_eq!(taken(&files), Room::default());
        fs::create_dir_all(files.join("a/b")).unwrap();
        fs::write(files.join("a/b/c"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", files.join("link")).unwrap();
        let size = taken(&files);
        assert!((1 << 20..2 << 20).contains(&size.bytes), "{size:?}");
        assert_eq!(size.files, 4);
        assert!(of_file_system(directory.path()).unwrap().bytes > 0);
    }

    #[test]
    fn holes_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        fs::File::create(directory.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(taken(directory.path()).bytes < 1 << 20);
    }

    #[test]
    fn no_depth_hides_a_file() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            let bottom = mk_deep(&directory.path().join(name), 3000);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&bottom, "file", flags, Mode::RUSR).unwrap();
            rustix::io::write(&file, &[1; 1 << 20]).unwrap();
        }
        let size = taken(directory.path());
        assert!(size.bytes >= 2 << 20, "{size:?}");
        assert_eq!(size.files, 2 * 3002);
        crate::state::trash::empty(directory.path()).unwrap();
    }

    #[test]
    fn empty_files_have_a_limit_too() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..100 {
            fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        let limit = Room { bytes: u64::MAX, files: 50 };
        let size = of_tree(directory.path(), &limit).unwrap();
        assert!(size.exceeds(&limit) && size.files < 60, "{size:?}");
        assert_eq!(Room::within(16 << 20).files, 16_384);
        assert_eq!(Room::within(4 << 30).files, 262_144);
    }

    /// The walk ends, stays below its top, and misses at most what moves.
    #[test]
    fn directories_that_move_lead_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let top = outside.path().join("top");
        for name in ["top/a/b/c/d", "top/e", "other"] {
            fs::create_dir_all(outside.path().join(name)).unwrap();
        }
        for number in 0..200 {
            fs::write(outside.path().join("other").join(number.to_string()), "").unwrap();
            fs::create_dir(top.join("a/b/c/d").join(number.to_string())).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(top.join("a/b/c"), outside.path().join("other/c")).unwrap();
                    fs::rename(outside.path().join("other/c"), top.join("e/c")).unwrap();
                    fs::rename(top.join("e/c"), top.join("a/b/c")).unwrap();
                }
            });
            for _ in 0..300 {
                let size = of_tree(&top, &NO_END).unwrap();
                assert!((3..=410).contains(&size.files), "{size:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn the_processes_of_a_process_are_found() {
        use std::io::BufRead;
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "(sleep 1000 & sleep 1000 & echo ready; wait) & wait"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let found = descendants(i32::try_from(child.id()).unwrap());
        for process in found.iter().rev() {
            let process = rustix::process::Pid::from_raw(*process).unwrap();
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
