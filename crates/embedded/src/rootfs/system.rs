//! Which directories of the machine are its system.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Directories a system is in. `/opt` is not among them: what lies there is this machine's own software,
/// often with its configuration and keys beside it.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// The machine's system, as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSystem {
    /// Directories shown in layers, a directory after those above it. File systems mounted below the
    /// system's directories are directories of their own here.
    pub directories: Vec<PathBuf>,
    /// Symbolic links at the root, and where they lead.
    pub links: Vec<(PathBuf, PathBuf)>,
}

impl HostSystem {
    /// Looks at this machine.
    #[must_use]
    pub fn probe() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut system = Self::default();
        let mut directories = BTreeSet::new();
        for path in SYSTEM.iter().map(Path::new) {
            match std::fs::symlink_metadata(path) {
                Ok(found) if found.is_symlink() => {
                    let Ok(to) = std::fs::read_link(path) else { continue };
                    system.links.push((path.to_owned(), to));
                }
                Ok(found) if found.is_dir() => {
                    directories.insert(path.to_owned());
                    directories.extend(mounted_below(&mounts, path));
                }
                _ => {}
            }
        }
        system.directories = directories.into_iter().collect();
        system
    }
}

/// File systems on disks that are mounted below `path`; others hold no system.
fn mounted_below(mounts: &str, path: &Path) -> Vec<PathBuf> {
    const WITH_SYSTEMS: [&str; 9] =
        ["ext4", "ext3", "ext2", "xfs", "btrfs", "zfs", "f2fs", "erofs", "squashfs"];
    let line = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let place = unescape(place.split(' ').nth(4)?);
        let kind = kind.split(' ').next()?;
        let below = place.starts_with(path) && place != path;
        (below && WITH_SYSTEMS.contains(&kind) && place.is_dir()).then_some(place)
    };
    mounts.lines().filter_map(line).collect()
}

/// The kernel writes space, tab, newline and backslash as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_system() {
        let system = HostSystem::probe();
        assert!(system.directories.contains(&PathBuf::from("/usr")));
        let has = |name: &str| {
            let path = PathBuf::from(name);
            system.directories.contains(&path) || system.links.iter().any(|(link, _)| *link == path)
        };
        assert!(has("/bin") && has("/lib"));
    }

    #[test]
    fn a_file_system_mounted_below_the_system_is_part_of_it() {
        let mounts = "1 2 8:1 / /usr/src rw shared:1 - ext4 /dev/sda1 rw\n\
                      2 2 0:9 / /usr/share rw - tmpfs none rw\n\
                      3 2 8:2 / /srv rw - ext4 /dev/sdb rw\n";
        assert_eq!(mounted_below(mounts, Path::new("/usr")), [PathBuf::from("/usr/src")]);
    }

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(unescape(r"/usr/a\040b\134c"), PathBuf::from(r"/usr/a b\c"));
    }
}
