//! `cargo xtask openapi`: the description of the API as a file in git, so that a change of the API shows
//! in a review. A test of the server fails when the file is not what the server serves.

use anyhow::{Context, Result};

use crate::cargo::Cargo;
use crate::progress::answer;
use crate::{paths, run};

/// Writes `crates/server/openapi.json` and prints its path.
///
/// # Errors
/// When the server does not build, or the file cannot be written.
pub fn run() -> Result<()> {
    let mut command =
        Cargo::new("run").args(["--quiet", "--package", "stockade-server", "--example", "openapi"]);
    let description = run::output(command.command())?;
    let path = paths::repository().join("crates/server/openapi.json");
    std::fs::write(&path, description).with_context(|| format!("cannot write {}", path.display()))?;
    answer(&path.display().to_string());
    Ok(())
}
