//! cargo-deny, built once and kept.

use std::time::Duration;

use anyhow::Result;

use super::log::Log;
use super::stages::BUILD;
use crate::cargo::Cargo;
use crate::paths;

/// Known to build with the pinned toolchain.
const VERSION: &str = "0.20.2";
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(log: &mut Log) -> Result<()> {
    let root = paths::tools_cache()?.join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let install = Cargo::new("install")
            .args(["--locked", "cargo-deny", "--version", VERSION, "--root"])
            .args([&root]);
        log.run(install.into(), BUILD)?;
    }
    let mut check = std::process::Command::new(program);
    check.current_dir(paths::repository());
    // `check` also looks at advisories unless it is told what to look at; see `Stage::note`.
    check.args([
        "--locked",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    log.run(check, LIMIT)
}
