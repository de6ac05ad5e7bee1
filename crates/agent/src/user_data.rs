//! Opening a new thread's directory to the user of a sandbox.
//!
//! The kubelet makes a thread's directory where it is missing, for root alone, and an image's user is usually
//! another: its files could be written nowhere. So the agent, as root in an init container, opens what the kubelet
//! has made, as `DeerFlow`'s gateway does beforehand. What anybody else has made, or has put something into, stays
//! as it is: nothing changes hands, and no symbolic link is followed.

use std::io;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// What agents are told to write into.
const PARTS: [&str; 3] = ["workspace", "uploads", "outputs"];
/// Mounted read-only into the sandbox, whose it is not.
const CONVERSIONS: &str = ".upload-conversions";
/// As `DeerFlow`'s gateway makes them: whichever user the image has can write.
const OPEN: Mode = Mode::from_raw_mode(0o777);

/// Opens this directory and its parts, as far as nobody but the kubelet has made them.
///
/// # Errors
/// What the system said. Nothing is half open then that would be worse than shut.
pub(crate) fn open_to_all(directory: &Path) -> io::Result<()> {
    let top = open(CWD, directory)?;
    if is_ours_and_shut(&top)? && has_nothing_but_parts(&top)? {
        fchmod(&top, OPEN)?;
        for part in PARTS {
            match mkdirat(&top, part, OPEN) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    for part in PARTS {
        match open(&top, part) {
            Ok(part) if is_ours_and_shut(&part)? && is_empty(&part)? => fchmod(&part, OPEN)?,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// The kubelet is the same user as this process: root.
fn is_ours_and_shut(directory: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = fstat(directory)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    Ok(stat.st_uid == geteuid().as_raw() && !mode.contains(Mode::WOTH))
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    Ok(names(directory.as_fd())?.next().is_none())
}

/// Whether there is nothing in it, or only what another sandbox's start has left: parts that are empty.
fn has_nothing_but_parts(top: &OwnedFd) -> io::Result<bool> {
    for name in names(top.as_fd())? {
        let name = name?;
        let is_as_made = match name.to_str() {
            Ok(CONVERSIONS) => true,
            Ok(part) if PARTS.contains(&part) => match open(top, part) {
                Ok(part) => fstat(&part)?.st_uid == geteuid().as_raw() && is_empty(&part)?,
                Err(_) => false,
            },
            _ => false,
        };
        if !is_as_made {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is in it, without itself and its parent.
fn names(
    directory: BorrowedFd<'_>,
) -> io::Result<impl Iterator<Item = rustix::io::Result<std::ffi::CString>>> {
    let own = |name: &std::ffi::CStr| name == c"." || name == c"..";
    let entries = Dir::read_from(directory)?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) if own(entry.file_name()) && entry.file_type() == FileType::Directory => None,
        Ok(entry) => Some(Ok(entry.file_name().to_owned())),
        Err(error) => Some(Err(error)),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory as the kubelet makes it.
    struct Made {
        _world: tempfile::TempDir,
        top: PathBuf,
        elsewhere: PathBuf,
    }

    fn shut(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn mk_made() -> Made {
        let world = tempfile::tempdir().unwrap();
        let [top, elsewhere] = ["user-data", "elsewhere"].map(|name| world.path().join(name));
        for directory in [&top, &elsewhere] {
            fs::create_dir(directory).unwrap();
            shut(directory);
        }
        Made { _world: world, top, elsewhere }
    }

    #[test]
    fn what_the_kubelet_made_is_opened_with_its_parts() {
        let made = mk_made();
        for _ in 0..2 {
            open_to_all(&made.top).unwrap();
            assert_eq!(mode(&made.top), 0o777);
            assert!(PARTS.iter().all(|part| mode(&made.top.join(part)) == 0o777));
        }
    }

    #[test]
    fn parts_and_conversions_that_the_kubelet_made_for_mounts_are_no_content() {
        let made = mk_made();
        for name in ["uploads", CONVERSIONS] {
            fs::create_dir(made.top.join(name)).unwrap();
            shut(&made.top.join(name));
        }
        fs::write(made.top.join(CONVERSIONS).join("page.md"), "converted").unwrap();
        open_to_all(&made.top).unwrap();
        assert_eq!((mode(&made.top), mode(&made.top.join("uploads"))), (0o777, 0o777));
        assert_eq!(mode(&made.top.join(CONVERSIONS)), 0o755, "it is not the sandbox's");
    }

    #[test]
    fn what_has_content_stays_as_it_is() {
        for content in ["report.txt", "workspace/report.txt", ".hidden"] {
            let made = mk_made();
            let file = made.top.join(content);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            shut(file.parent().unwrap());
            fs::write(&file, "somebody's").unwrap();
            open_to_all(&made.top).unwrap();
            assert_eq!(mode(&made.top), 0o755, "{content}");
            assert_eq!(mode(file.parent().unwrap()), 0o755, "{content}");
            assert!(!made.top.join("outputs").exists(), "{content}");
        }
    }

    #[test]
    fn an_empty_part_of_an_open_directory_is_opened_and_none_is_made() {
        let made = mk_made();
        fs::set_permissions(&made.top, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(made.top.join("report.txt"), "somebody's").unwrap();
        fs::create_dir(made.top.join("workspace")).unwrap();
        shut(&made.top.join("workspace"));
        open_to_all(&made.top).unwrap();
        assert_eq!(mode(&made.top.join("workspace")), 0o777);
        assert!(!made.top.join("outputs").exists());
    }

    #[test]
    fn no_link_is_followed_wherever_it_is_planted() {
        let made = mk_made();
        symlink(&made.elsewhere, made.top.join("workspace")).unwrap();
        open_to_all(&made.top).unwrap();
        assert_eq!((mode(&made.elsewhere), mode(&made.top)), (0o755, 0o755));
        let link = made.top.with_file_name("link");
        symlink(&made.elsewhere, &link).unwrap();
        assert!(open_to_all(&link).is_err());
        assert_eq!(mode(&made.elsewhere), 0o755);
    }

    #[test]
    fn a_file_in_the_place_of_a_part_is_somebody_s() {
        let made = mk_made();
        fs::write(made.top.join("outputs"), "a file").unwrap();
        open_to_all(&made.top).unwrap();
        assert_eq!(mode(&made.top), 0o755);
        assert_eq!(fs::read_to_string(made.top.join("outputs")).unwrap(), "a file");
    }
}
