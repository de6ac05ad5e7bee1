//! The commit that all tests were last seen to pass on: `.stockade/green`.

use anyhow::{Context as _, Result};

use crate::{paths, run};

/// The commit of the working tree; none when something in it is not committed, or there is no repository.
pub(super) fn tree() -> Result<Option<String>> {
    let git = |line: &[&str]| {
        let mut command = run::command(line);
        run::output(command.current_dir(paths::repository()))
    };
    let Ok(changes) = git(&["git", "status", "--porcelain"]) else { return Ok(None) };
    if !changes.trim().is_empty() {
        return Ok(None);
    }
    let commit = git(&["git", "rev-parse", "HEAD"])?;
    Ok(Some(commit.trim().to_owned()))
}

/// Writes down that all tests passed on it.
pub(super) fn record(commit: &str) -> Result<()> {
    let directory = paths::repository().join(".stockade");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join("green");
    std::fs::write(&path, format!("{commit}\n")).with_context(|| format!("cannot write {}", path.display()))
}
