//! Making one directory like another, without touching what is like it already.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

/// What is made anew has this name until it is whole. No layer has a file of it.
const UNFINISHED: &str = ".stockade-unfinished";

/// Makes `to` have what `from` has: names, kinds, content, owners and permissions. Files appear whole.
pub(super) fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    let wanted = names(from)?;
    for name in names(to)?.difference(&wanted) {
        remove(&to.join(name))?;
    }
    for name in &wanted {
        entry(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn entry(from: &Path, to: &Path) -> io::Result<()> {
    let wanted = fs::symlink_metadata(from)?;
    let there = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    if wanted.is_dir() {
        match there {
            Some(found) if found.is_dir() => {}
            Some(_) => fs::remove_file(to).and_then(|()| fs::create_dir(to))?,
            None => fs::create_dir(to)?,
        }
        mirror(from, to)?;
        return belongs(&wanted, to);
    }
    if there.as_ref().is_some_and(|found| same(from, &wanted, to, found)) {
        return belongs(&wanted, to);
    }
    if there.is_some_and(|found| found.is_dir()) {
        fs::remove_dir_all(to)?;
    }
    let unfinished = to.with_file_name(UNFINISHED);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => make(from, &wanted, &unfinished)?,
    }
    belongs(&wanted, &unfinished)?;
    fs::rename(&unfinished, to)
}

/// Whether the two have the same kind and content. What cannot be read is not the same.
fn same(from: &Path, wanted: &Metadata, to: &Path, found: &Metadata) -> bool {
    if wanted.file_type() != found.file_type() {
        return false;
    }
    if wanted.is_symlink() {
        return matches!((fs::read_link(from), fs::read_link(to)), (Ok(one), Ok(other)) if one == other);
    }
    if wanted.file_type().is_char_device() {
        return wanted.rdev() == found.rdev();
    }
    wanted.len() == found.len()
        && matches!((fs::read(from), fs::read(to)), (Ok(one), Ok(other)) if one == other)
}

fn make(from: &Path, wanted: &Metadata, to: &Path) -> io::Result<()> {
    if wanted.is_symlink() {
        symlink(fs::read_link(from)?, to)
    } else if wanted.file_type().is_char_device() {
        // The mark of a layer for "nothing here".
        Ok(rustix::fs::mknodat(CWD, to, FileType::CharacterDevice, Mode::empty(), wanted.rdev())?)
    } else {
        fs::copy(from, to).map(drop)
    }
}

fn belongs(wanted: &Metadata, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(to)?;
    if (found.uid(), found.gid()) != (wanted.uid(), wanted.gid()) {
        std::os::unix::fs::lchown(to, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    if !wanted.is_symlink() && found.mode() != wanted.mode() {
        fs::set_permissions(to, wanted.permissions())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tree(path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for name in names(path).unwrap() {
            let path = path.join(&name);
            let found = fs::symlink_metadata(&path).unwrap();
            let content = if found.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if found.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                String::new()
            };
            lines.push(format!("{} {:o} {} {}", name.display(), found.mode(), found.uid(), content));
            if found.is_dir() {
                lines.extend(tree(&path).into_iter().map(|line| format!("{}/{line}", name.display())));
            }
        }
        lines
    }

    #[test]
    fn what_was_there_becomes_what_is_wanted_and_what_is_alike_stays() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |directory: &tempfile::TempDir, name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        };
        for name in ["same", "changed", "mode", "a/b/new", "was_directory", "was_link"] {
            write(&from, name, name);
        }
        symlink("target", from.path().join("link")).unwrap();
        symlink("target", from.path().join("moved")).unwrap();
        fs::create_dir(from.path().join("was_file")).unwrap();
        fs::set_permissions(from.path().join("mode"), fs::Permissions::from_mode(0o1755)).unwrap();
        fs::set_permissions(from.path().join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
        write(&to, "same", "same");
        write(&to, "mode", "mode");
        write(&to, "changed", "longer before");
        write(&to, "gone/deep/file", "x");
        write(&to, "was_directory/file", "x");
        write(&to, "was_file", "x");
        write(&to, UNFINISHED, "of one that was killed");
        symlink("elsewhere", to.path().join("moved")).unwrap();
        symlink("same", to.path().join("was_link")).unwrap();
        let number = |name: &str| fs::symlink_metadata(to.path().join(name)).unwrap().ino();
        let before = (number("same"), number("mode"));
        mirror(from.path(), to.path()).unwrap();
        assert_eq!(tree(to.path()), tree(from.path()));
        assert_eq!((number("same"), number("mode")), before);
        let all = tree(to.path());
        mirror(from.path(), to.path()).unwrap();
        assert_eq!(tree(to.path()), all);
    }
}
