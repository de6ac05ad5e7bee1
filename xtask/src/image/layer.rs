//! A layer: a tar of files, directories and links.
//!
//! The same content gives the same bytes: entries are sorted by path, times are 0, and the builder
//! never looks at the user, the umask or the clock of the machine it runs on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

/// What lies at one path of a layer. Modes are permission bits; owner and group are root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Directory { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Symlink { target: String },
}

/// A layer in the making.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<String, Content>,
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, and with it the directories above that are not there yet (0755).
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.insert(path, Content::Directory { mode });
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.insert(path, Content::File { mode, bytes: bytes.into() });
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.insert(path, Content::Symlink { target: target.to_owned() });
        self
    }

    /// Adds everything below `directory` under `prefix`, with its permission bits and without its
    /// owners, times and device files.
    ///
    /// # Errors
    /// When something below cannot be read, or a name is not UTF-8.
    pub fn tree(mut self, prefix: &str, directory: &Path) -> Result<Self> {
        self.add_tree(prefix, directory)?;
        Ok(self)
    }

    fn add_tree(&mut self, prefix: &str, directory: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let context = || format!("cannot put {} into an image", directory.display());
        for entry in std::fs::read_dir(directory).with_context(context)? {
            let entry = entry.with_context(context)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                bail!("{}: the name is not UTF-8", entry.path().display());
            };
            let path = format!("{prefix}/{name}");
            let metadata = entry.metadata().with_context(context)?;
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.insert(&path, Content::Directory { mode });
                self.add_tree(&path, &entry.path())?;
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(entry.path()).with_context(context)?;
                let target = target.to_str().with_context(|| format!("{path}: its target is not UTF-8"))?;
                self.insert(&path, Content::Symlink { target: target.to_owned() });
            } else if metadata.is_file() {
                let bytes = std::fs::read(entry.path()).with_context(context)?;
                self.insert(&path, Content::File { mode, bytes });
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, content: Content) {
        let path = path.trim_matches('/').to_owned();
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            self.entries.entry(parent.to_owned()).or_insert(Content::Directory { mode: 0o755 });
            above = parent;
        }
        self.entries.insert(path, content);
    }

    /// The layer as an uncompressed tar.
    ///
    /// # Errors
    /// When a path or a link target is too long for the format.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in &self.entries {
            append(&mut builder, path, content).with_context(|| format!("cannot put {path} into a layer"))?;
        }
        Ok(builder.into_inner()?)
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &Content) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match content {
        Content::Directory { mode } => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        Content::File { mode, bytes } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())
        }
        Content::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, path, target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(layer: &Layer) -> Vec<String> {
        let bytes = layer.to_tar().unwrap();
        tar::Archive::new(bytes.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn directories_above_a_file_come_before_it() {
        let layer = Layer::new().file("/usr/bin/tool", 0o755, b"x".as_slice());
        assert_eq!(paths(&layer), ["usr/", "usr/bin/", "usr/bin/tool"]);
    }

    #[test]
    fn the_order_of_adding_does_not_change_the_bytes() {
        let one = Layer::new().directory("/tmp", 0o1777).file("/a", 0o644, b"1".as_slice());
        let two = Layer::new().file("/a", 0o644, b"1".as_slice()).directory("/tmp", 0o1777);
        assert_eq!(one.to_tar().unwrap(), two.to_tar().unwrap());
    }

    #[test]
    fn a_directory_tree_keeps_modes_and_links() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        let file = directory.path().join("bin/run");
        std::fs::write(&file, "#!").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("run", directory.path().join("bin/link")).unwrap();
        let layer = Layer::new().tree("/opt", directory.path()).unwrap();
        assert_eq!(paths(&layer), ["opt/", "opt/bin/", "opt/bin/link", "opt/bin/run"]);
        assert_eq!(layer.entries["opt/bin/run"], Content::File { mode: 0o750, bytes: b"#!".to_vec() });
    }
}
