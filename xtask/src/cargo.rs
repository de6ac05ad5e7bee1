//! Calling cargo, and where it puts what it builds.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::paths;

/// A cargo command in the repository.
#[derive(Debug)]
pub struct Cargo(Command);

impl Cargo {
    /// `cargo SUBCOMMAND`.
    #[must_use]
    pub fn new(subcommand: &str) -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(program);
        command.current_dir(paths::repository()).arg(subcommand);
        // Set by the `cargo run` that started us; a change of them would make build scripts run again.
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            command.env_remove(variable);
        }
        Self(command)
    }

    /// With these arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.args(arguments);
        self
    }

    /// To be run.
    pub fn command(&mut self) -> &mut Command {
        &mut self.0
    }
}

impl From<Cargo> for Command {
    fn from(cargo: Cargo) -> Self {
        cargo.0
    }
}

/// The directory that cargo builds in.
#[must_use]
pub fn target_directory() -> PathBuf {
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    paths::repository().join(directory)
}

/// The build of a program for a target with one of the profiles that have a directory of their name.
#[must_use]
pub fn built(target: &str, profile: &str, program: &str) -> PathBuf {
    target_directory().join(target).join(profile).join(program)
}
