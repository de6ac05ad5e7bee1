//! Python programs of the tests, in virtual environments that are made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::packages;
use crate::image::archive::sha256_hex;
use crate::{paths, run};

/// A virtual environment with exactly the packages of a requirements file, and no more than those need.
#[derive(Debug, Clone)]
pub struct Environment {
    directory: PathBuf,
}

impl Environment {
    /// Where it is in the cache; `make` runs the commands that make it when it is not there yet.
    ///
    /// # Errors
    /// When Python is missing and cannot be installed, or a command fails: without a package index, for
    /// example.
    pub fn ensure(requirements: &Path, mut make: impl FnMut(Command) -> Result<()>) -> Result<Self> {
        let python = packages::ensure_python()?;
        let text =
            std::fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
        let version = run::output(Command::new(&python).args(["-c", "import sys; print(sys.version)"]))?;
        let name = format!("python-{}", cache_key(&python, &version, &text));
        let directory = paths::tools_cache()?.join(&name);
        if !directory.is_dir() {
            // Made beside and renamed as a whole: a directory in the cache is always complete.
            let partial = directory.with_file_name(format!("partial-{name}-{}", std::process::id()));
            let made = fill(&python, &partial, requirements, &mut make);
            let moved = made.and_then(|()| match std::fs::rename(&partial, &directory) {
                // Another run was faster; its packages are the same.
                Err(_) if directory.is_dir() => Ok(()),
                moved => moved.with_context(|| format!("cannot make {}", directory.display())),
            });
            let _ = std::fs::remove_dir_all(&partial);
            moved?;
        }
        Ok(Self { directory })
    }

    /// The interpreter. Programs of packages are its modules (`-m pytest`): the scripts beside it know the
    /// directory by its first name.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.programs().join("python3")
    }

    /// The directory of the interpreter, for a `PATH`.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.directory.join("bin")
    }
}

fn fill(
    python: &Path,
    directory: &Path,
    requirements: &Path,
    make: &mut impl FnMut(Command) -> Result<()>,
) -> Result<()> {
    let mut environment = Command::new(python);
    environment.args(["-m", "venv"]).arg(directory);
    make(environment)?;
    let mut install = Command::new(directory.join("bin/python3"));
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(requirements);
    make(install).context("the packages cannot be installed; pip takes its index from PIP_INDEX_URL")
}

/// The same for the same interpreter and packages; another of these needs an environment of its own.
fn cache_key(python: &Path, version: &str, requirements: &[u8]) -> String {
    let mut content = format!("{}\n{version}\n", python.display()).into_bytes();
    content.extend_from_slice(requirements);
    let mut key = sha256_hex(&content);
    key.truncate(16);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_interpreter_version_and_packages() {
        let key = |python: &str, version, packages: &str| {
            cache_key(Path::new(python), version, packages.as_bytes())
        };
        let first = key("/usr/bin/python3", "3.11.2", "a==1");
        assert_eq!(first, key("/usr/bin/python3", "3.11.2", "a==1"));
        assert_ne!(first, key("/opt/bin/python3", "3.11.2", "a==1"));
        assert_ne!(first, key("/usr/bin/python3", "3.12.0", "a==1"));
        assert_ne!(first, key("/usr/bin/python3", "3.11.2", "a==2"));
    }
}
