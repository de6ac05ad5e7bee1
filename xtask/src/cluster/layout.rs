//! Where one cluster keeps its files, and the names that follow from its name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::image::archive::sha256_hex;
use crate::paths;

/// One cluster's directory. Everything in it is gone after `cluster down`.
#[derive(Debug, Clone)]
pub struct Layout {
    name: String,
    state: PathBuf,
    /// Tells clusters of one name in two checkouts apart, in names that all of the machine shares.
    id: String,
}

impl Layout {
    /// The layout of a cluster of this name.
    ///
    /// # Errors
    /// When the name cannot be part of a node's name, or the state directory has no absolute path.
    pub fn new(name: &str) -> Result<Self> {
        Self::within(&paths::clusters()?, name)
    }

    fn within(clusters: &Path, name: &str) -> Result<Self> {
        let fits = name.len() <= 20
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.ends_with('-');
        ensure!(
            fits,
            "the cluster name {name:?} does not fit; use up to 20 lower-case letters, digits and dashes, a letter first"
        );
        let state = clusters.join(name);
        let mut id = sha256_hex(state.as_os_str().as_encoded_bytes());
        id.truncate(8);
        Ok(Self { name: name.to_owned(), state, id })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Eight hexadecimal digits, different for every state directory.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory of everything below.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The name of the only node.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("stockade-{}", self.name)
    }

    /// The host's end of the cable between host and cluster (15 bytes at most).
    #[must_use]
    pub fn host_interface(&self) -> String {
        format!("skd{}", self.id)
    }

    /// The parent of all Pods' cgroups, relative to each hierarchy's root.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("stockade-{}-{}", self.name, self.id)
    }

    /// Held while a command changes the cluster. Beside the state directory, which `down` removes.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.with_extension("lock")
    }

    /// What a later command needs to know.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.state.join("cluster.json")
    }

    /// The program that holds the namespaces; its path is how a killed run's namespaces are found.
    #[must_use]
    pub fn holder(&self) -> PathBuf {
        self.state.join("holder")
    }

    /// A component's log.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.state.join("logs").join(format!("{component}.log"))
    }

    /// A certificate, key or kubeconfig (all of them 0600).
    #[must_use]
    pub fn pki(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// A component's configuration file.
    #[must_use]
    pub fn config(&self, file: &str) -> PathBuf {
        self.state.join("config").join(file)
    }

    /// A component's data.
    #[must_use]
    pub fn data(&self, directory: &str) -> PathBuf {
        self.state.join("data").join(directory)
    }

    /// Makes the directories, readable by the owner only.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn create(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        for directory in ["", "logs", "pki", "config", "data"] {
            let directory = self.state.join(directory);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        }
        Ok(())
    }
}

/// Writes a file that only its owner may read, at once or not at all.
///
/// # Errors
/// When the file cannot be written or renamed.
pub fn write_private(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let context = || format!("cannot write {}", path.display());
    let partial = path.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .with_context(context)?;
    file.write_all(content.as_ref()).with_context(context)?;
    std::fs::rename(&partial, path).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_node_can_have_are_refused_with_the_rule() {
        for name in ["", "A", "a_b", "-a", "a-", "../x", "a/b", "9a", &"a".repeat(21)] {
            let error = Layout::within(Path::new("/s"), name).unwrap_err().to_string();
            assert!(error.contains("lower-case"), "{error}");
        }
    }

    #[test]
    fn equal_names_in_two_checkouts_share_nothing() {
        let one = Layout::within(Path::new("/one"), "default").unwrap();
        let two = Layout::within(Path::new("/two"), "default").unwrap();
        assert_ne!(one.host_interface(), two.host_interface());
        assert_ne!(one.cgroup(), two.cgroup());
    }

    #[test]
    fn an_interface_name_has_at_most_fifteen_bytes() {
        let layout = Layout::within(Path::new("/one"), &"a".repeat(20)).unwrap();
        assert!(layout.host_interface().len() <= 15);
    }

    #[test]
    fn a_private_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_private(&path, "secret").unwrap();
        write_private(&path, "again").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "again");
    }
}
