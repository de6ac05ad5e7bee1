//! The stages, in their order.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::log::Log;
use super::suite::{self, Runner};
use super::{Run, cluster_tests, deny, embedded_tests, kernel_tests, real_tests, sdk};
use crate::cargo::Cargo;
use crate::dist::{self, Program};
use crate::run;

/// The longest that cargo may take to build everything from nothing, on two cores that others use too.
pub(super) const BUILD: Duration = Duration::from_secs(40 * 60);
/// Without these `cargo test --workspace` leaves the tests out that need a cluster, or fill the machine.
const FEATURES: &str = "stockade-e2e/kubernetes,stockade-e2e/embedded";
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
    /// The delivered static programs for `x86_64`
    StaticX86,
    /// The delivered static programs for arm64
    StaticArm64,
    /// The sandbox agent as a plain process, driven by the public SDK
    Sdk,
    /// Sandboxes of this machine, attacked from inside, as root and as an ordinary user; then the SDK in them
    Embedded,
    /// Those again in a virtual machine with Debian's own kernel; only when named
    Kernels,
    /// The server against a real cluster
    Cluster,
    /// Real sandboxes in Pods: the SDK again, and the agent in images without it
    SdkCluster,
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
            Self::Sdk => "sdk",
            Self::Embedded => "embedded",
            Self::Kernels => "kernels",
            Self::Cluster => "cluster",
            Self::SdkCluster => "sdk-cluster",
        }
    }

    /// Whether it belongs to `--fast`.
    pub(super) fn is_fast(self) -> bool {
        matches!(self, Self::Format | Self::Lint | Self::Tests)
    }

    /// Whether it is run when it is asked for by name only: in an emulated machine time passes otherwise, and whoever is
    /// busy beside it decides how.
    pub(super) fn is_on_demand(self) -> bool {
        self == Self::Kernels
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
                let everything = ["--workspace", "--all-targets", "--features", FEATURES];
                let lint =
                    Cargo::new("clippy").args(everything).args(["--locked", "--", "--deny", "warnings"]);
                log.run(lint.into(), BUILD)
            }
            Self::Tests => {
                let tests = || Cargo::new("test").args(["--workspace", "--locked", "--no-fail-fast"]);
                suite::run(log, Runner::Cargo, BUILD, || Ok(tests().into()))
            }
            Self::Dependencies => deny::run(log),
            Self::StaticX86 => build_all_static("x86_64", log),
            Self::StaticArm64 => build_all_static("aarch64", log),
            Self::Sdk => sdk::run(run, log),
            Self::Embedded => embedded_tests::run(run, log),
            Self::Kernels => kernel_tests::run(run, log),
            Self::Cluster => cluster_tests::run(run, log),
            Self::SdkCluster => real_tests::run(run, log),
        }
    }

    /// The one that builds what is delivered for this machine.
    pub(super) fn is_static_here(self) -> bool {
        match self {
            Self::StaticX86 => cfg!(target_arch = "x86_64"),
            Self::StaticArm64 => cfg!(target_arch = "aarch64"),
            _ => false,
        }
    }
}

/// Builds what is delivered for an architecture and makes sure that it is static.
fn build_all_static(architecture: &str, log: &mut Log) -> Result<()> {
    Program::ALL.into_iter().try_for_each(|program| build_static(program, architecture, log).map(drop))
}

/// Builds a program for an architecture, makes sure that it is static, and says where it is.
pub(super) fn build_static(program: Program, architecture: &str, log: &mut Log) -> Result<PathBuf> {
    log.run(dist::build_command(program, architecture)?, BUILD)?;
    dist::check(program, architecture)
}

/// Builds tests of `e2e` with the features of the whole workspace, so that `cargo test --workspace` and this
/// share what they build.
pub(super) fn build_tests(name: &str, log: &mut Log) -> Result<PathBuf> {
    build_programs(&["--test", name], &[name], log).map(|mut programs| programs.remove(0))
}

/// Builds some of the workspace's tests so, and says where they are, by their names: of a library, or a file of tests.
pub(super) fn build_programs(targets: &[&str], names: &[&str], log: &mut Log) -> Result<Vec<PathBuf>> {
    let everything = ["--workspace", "--locked", "--features", FEATURES, "--no-run"];
    let selected = || Cargo::new("test").args(everything).args(targets);
    log.run(selected().into(), BUILD)?;
    let mut again = selected().args(["--quiet", "--message-format", "json"]);
    let messages = run::output(again.command())?;
    let built: Vec<(String, PathBuf)> = messages
        .lines()
        .filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let executable = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(executable)))
        })
        .collect();
    let find = |name: &&str| {
        let found = built.iter().find(|(built, _)| built == name).map(|(_, path)| path.clone());
        found.with_context(|| format!("cargo does not say where the tests {name} are"))
    };
    names.iter().map(find).collect()
}
