//! The directories on the node that DeerFlow would have made.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A base directory of one test, removed with it.
#[derive(Debug)]
pub struct HostDirs {
    root: TempDir,
}

impl HostDirs {
    /// An empty base directory below `parent`, with the skill views of user `default`.
    #[must_use]
    pub fn new(parent: &Path) -> Self {
        fs::create_dir_all(parent).expect("the directory for host paths");
        let root = tempfile::Builder::new().prefix("stockade-e2e-").tempdir_in(parent).expect("a directory");
        let dirs = Self { root };
        dirs.make("skills_view/public");
        dirs.make_user("default");
        fs::write(dirs.path("skills_view/public/SKILL.md"), "public skill").expect("a skill");
        dirs
    }

    /// The base directory: `DEER_FLOW_HOST_BASE_DIR`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.root.path().to_str().expect("temporary directories have plain names")
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Makes a directory below it, and says where.
    pub fn make(&self, relative: &str) -> String {
        let path = self.path(relative);
        fs::create_dir_all(&path).expect("a directory on the host");
        path.to_str().expect("plain names").to_owned()
    }

    /// Makes a user's own skill views.
    pub fn make_user(&self, user: &str) {
        self.make(&format!("users/{user}/skills_view/custom"));
        self.make(&format!("users/{user}/skills_view/legacy"));
    }

    /// Where a thread's files lie under contract 2.
    #[must_use]
    pub fn user_data(&self, user: &str, thread: &str) -> PathBuf {
        self.path(&format!("users/{user}/threads/{thread}/user-data"))
    }
}
