//! The standard library for the targets that are built for. `rust-toolchain.toml` names them, but rustup installs
//! those only together with the toolchain, and where it may.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::progress::Step;
use crate::run;

/// The longest that fetching one may take, in seconds: some 30 MB.
const FETCH: &str = "300";

/// Installs the target where it is missing.
///
/// # Errors
/// When it is missing and rustup cannot install it.
pub fn ensure(target: &str) -> Result<()> {
    if is_installed(target)? {
        return Ok(());
    }
    let step = Step::start(&format!("rustup target add {target}"));
    let mut add = run::command(&["timeout", FETCH, "rustup", "target", "add", target]);
    add.current_dir(crate::paths::repository());
    run::output(&mut add)
        .with_context(|| format!("the Rust target {target} is missing and cannot be installed"))?;
    ensure!(is_installed(target)?, "rustup says it installed {target}, and rustc does not find it");
    step.done();
    Ok(())
}

fn is_installed(target: &str) -> Result<bool> {
    let mut ask = run::command(&["rustc", "--print", "target-libdir", "--target", target]);
    let directory = run::output(ask.current_dir(crate::paths::repository()))?;
    // The directory may be there without what belongs into it, after a removal.
    let mut entries = std::fs::read_dir(Path::new(directory.trim())).into_iter().flatten().flatten();
    Ok(entries.any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}
