//! The stages, in their order.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::log::Log;
use super::{Run, cluster_tests, deny};
use crate::cargo::Cargo;
use crate::dist;

/// The longest that cargo may take to build everything from nothing, on two cores that others use too.
pub(super) const BUILD: Duration = Duration::from_secs(40 * 60);
const QUICK: Duration = Duration::from_secs(60);

/// A check of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Stage {
    /// rustfmt
    Format,
    /// clippy, with warnings as errors, on every target
    Lint,
    /// Unit and integration tests of the workspace, tidiness and the API's description among them
    Tests,
    /// cargo-deny: licenses, sources and bans of all dependencies
    Dependencies,
    /// The delivered static program for `x86_64`
    StaticX86,
    /// The delivered static program for arm64
    StaticArm64,
    /// The server against a real cluster
    Cluster,
}

impl Stage {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Lint => "lint",
            Self::Tests => "tests",
            Self::Dependencies => "dependencies",
            Self::StaticX86 => "static-x86",
            Self::StaticArm64 => "static-arm64",
            Self::Cluster => "cluster",
        }
    }

    /// Whether it belongs to `--fast`.
    pub(super) fn is_fast(self) -> bool {
        matches!(self, Self::Format | Self::Lint | Self::Tests)
    }

    /// What a reader of its success should know.
    pub(super) fn note(self) -> Option<&'static str> {
        (self == Self::Dependencies).then_some(
            "advisories are not looked up: their database is a git repository, and tests fetch none; \
             `cargo deny check advisories` where there is a network",
        )
    }

    pub(super) fn run(self, run: &Run, log: &mut Log) -> Result<()> {
        match self {
            Self::Format => log.run(Cargo::new("fmt").args(["--all", "--check"]).into(), QUICK),
            Self::Lint => {
                let everything = ["--workspace", "--all-targets", "--features", cluster_tests::FEATURE];
                let lint =
                    Cargo::new("clippy").args(everything).args(["--locked", "--", "--deny", "warnings"]);
                log.run(lint.into(), BUILD)
            }
            Self::Tests => {
                let tests = Cargo::new("test").args(["--workspace", "--locked", "--no-fail-fast"]);
                log.run(tests.into(), BUILD)
            }
            Self::Dependencies => deny::run(log),
            Self::StaticX86 => build_static("x86_64", log),
            Self::StaticArm64 => build_static("aarch64", log),
            Self::Cluster => cluster_tests::run(run, log),
        }
    }
}

/// Builds the server for an architecture and makes sure that it is static.
pub(super) fn build_static(architecture: &str, log: &mut Log) -> Result<()> {
    log.run(dist::build_command(architecture)?, BUILD).with_context(|| {
        let target = dist::target(architecture);
        format!("if the target {target} is missing: `rustup target add {target}`")
    })?;
    dist::check(architecture).map(drop)
}
