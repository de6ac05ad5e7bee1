//! The suite of the public SDK (`e2e/sdk`) against the sandbox agent as a plain process.

mod agents;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::agents::Agents;
use super::Run;
use super::log::Log;
use super::stages::{BUILD, build_static};
use super::suite::{self, Runner};
use crate::cargo::{Cargo, target_directory};
use crate::cluster::packages;
use crate::dist::Program;
use crate::paths;
use crate::python::Environment;

/// Agents, and as many workers: most tests wait for a time-out most of the time.
pub(super) const AT_ONCE: usize = 4;
/// Ten times of what it takes on two cores.
pub(super) const LIMIT: Duration = Duration::from_secs(5 * 60);
/// What commands in the sandbox need: a program, and its Debian package.
const IN_THE_SANDBOX: [(&str, &str); 4] =
    [("bash", "bash"), ("node", "nodejs"), ("pgrep", "procps"), ("seq", "coreutils")];

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    packages::ensure_programs(&IN_THE_SANDBOX)?;
    let environment = environment(log)?;
    let program = agent(run, log)?;
    let directory = target_directory().join("xtask-test/sdk");
    let agents = Agents::start(&program, AT_ONCE, &directory, &path_of_sandboxes(&environment)?)?;
    let tested = suite::run(log, Runner::Pytest, LIMIT, || {
        let mut tests = command(&environment, run.filter.as_deref());
        tests.env("STOCKADE_SANDBOX_URL", agents.urls().join(" "));
        Ok(tests)
    });
    let tested = if run.filter.is_some() && chose_nothing(log) { Ok(()) } else { tested };
    // Also an agent that did its work and does not end in order has failed.
    tested.and(agents.stop())
}

/// What the suite needs, made once.
pub(super) fn environment(log: &mut Log) -> Result<Environment> {
    Environment::ensure(&directory().join("requirements.txt"), |command| log.run(command, BUILD))
}

/// The suite, told to choose by `filter`. It still has to be told where sandboxes are.
fn command(environment: &Environment, filter: Option<&str>) -> Command {
    let mut command = Command::new(environment.python());
    let workers = AT_ONCE.to_string();
    command
        .current_dir(directory())
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--color", "no", "--numprocesses", &workers])
        .args(["--dist", "worksteal"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // A machine's proxy leads elsewhere.
        .env("NO_PROXY", "*");
    if let Some(filter) = filter {
        command.args(["-k", filter]);
    }
    command
}

/// Whether the filter chose none of the tests, which pytest calls a failure.
fn chose_nothing(log: &Log) -> bool {
    log.text().lines().any(|line| line.trim_start_matches(['=', ' ']).starts_with("no tests ran"))
}

/// The agent as it is delivered where this run builds it anyway, else the quick build.
fn agent(run: &Run, log: &mut Log) -> Result<PathBuf> {
    if run.builds_static {
        return build_static(Program::Agent, std::env::consts::ARCH, log);
    }
    log.run(Cargo::new("build").args(["--locked", "--package", Program::Agent.name()]).into(), BUILD)?;
    Ok(target_directory().join("debug").join(Program::Agent.name()))
}

/// Where sandboxes find programs. Their Python is the suite's own: known, and with pip.
fn path_of_sandboxes(environment: &Environment) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(environment.programs()).chain(std::env::split_paths(&path));
    std::env::join_paths(all).context("a directory of PATH has a colon in its name")
}

fn directory() -> PathBuf {
    paths::repository().join("e2e/sdk")
}
