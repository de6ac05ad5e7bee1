//! Directories of the machine's system in which a sandbox's user may write.
//!
//! They are made empty in a layer over the machine's; the kernel shows the upper layer's owner and both layers'
//! content. Directories that not everybody may enter are left as they are.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

/// How deep below a system directory all directories are writable: `/usr/bin`, `/usr/share/man`.
const DEPTH: usize = 2;
/// Trees into which programs are installed, with everything in them, below `/usr`.
const INSTALLED: &[&str] = &["local", "lib/node_modules", "lib/python3"];
/// How deep those are followed.
const INSTALLED_DEPTH: usize = 5;
/// Directories in one layer; each costs about a kilobyte of memory, once for all sandboxes.
const MOST: usize = 4_000;

/// Makes `layer` for the machine's `directory`. `hidden` are places below it that do not appear at all.
pub(super) fn fill(directory: &Path, layer: &Path, hidden: &[PathBuf]) -> io::Result<()> {
    let hidden: Vec<&Path> = hidden.iter().filter_map(|path| path.strip_prefix(directory).ok()).collect();
    let mut queue = VecDeque::from([PathBuf::new()]);
    let mut made = 0;
    while let Some(relative) = queue.pop_front() {
        let Ok(entries) = fs::read_dir(directory.join(&relative)) else { continue };
        for entry in entries.flatten() {
            let path = relative.join(entry.file_name());
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if made >= MOST || !is_directory || !wanted(&path) || hidden.contains(&path.as_path()) {
                continue;
            }
            let open = entry.metadata().is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005);
            if open {
                fs::create_dir(layer.join(&path))?;
                made += 1;
                queue.push_back(path);
            }
        }
    }
    hidden.iter().try_for_each(|path| hide(directory, layer, path))
}

fn wanted(path: &Path) -> bool {
    let depth = path.components().count();
    let installed = INSTALLED.iter().any(|tree| {
        // `lib/python3` stands for `lib/python3.11` as well.
        path.to_string_lossy().strip_prefix(tree).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || (*tree == "lib/python3" && rest.starts_with('.'))
        })
    });
    depth <= DEPTH || (installed && depth <= INSTALLED_DEPTH)
}

/// Leaves the kernel's mark for "nothing here" in the layer.
fn hide(directory: &Path, layer: &Path, path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut walked = PathBuf::new();
    for name in parent {
        walked.push(name);
        match fs::create_dir(layer.join(&walked)) {
            Ok(()) => {
                let mode = fs::metadata(directory.join(&walked))?.permissions();
                fs::set_permissions(layer.join(&walked), mode)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::mknodat(CWD, layer.join(path), FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_only_root_may_enter_are_not_opened() {
        let (system, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |name: &str| fs::create_dir_all(system.path().join(name)).unwrap();
        make("local/lib/python3.11/dist-packages");
        make("share/a/b");
        make("share/secret");
        make("state/inner");
        fs::set_permissions(system.path().join("share/secret"), fs::Permissions::from_mode(0o700)).unwrap();
        fill(system.path(), layer.path(), &[]).unwrap();
        let there = |name: &str| layer.path().join(name).is_dir();
        assert!(there("local/lib/python3.11/dist-packages") && there("share/a"));
        assert!(!there("share/a/b") && !there("share/secret"));
    }
}
