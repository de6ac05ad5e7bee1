//! The tests that need a cluster: builds them, brings the cluster up, runs them inside of its network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Run;
use super::log::Log;
use super::stages::{BUILD, build_static};
use crate::cargo::{Cargo, target_directory};
use crate::cluster::{self, DEFAULT_NAME, Handle, Options};
use crate::image::test_images::{Kind, Programs};
use crate::progress::say;
use crate::{dist, run};

/// Without it `cargo test --workspace` leaves these tests out.
pub(super) const FEATURE: &str = "stockade-e2e/kubernetes";
/// Those that break the cluster for everybody.
const OWN_CLUSTER: &str = "alone::own_cluster::";
/// How many tests run at once: most of them wait for the kubelet most of the time.
const AT_ONCE: &str = "8";
/// Three times of what they take on two cores.
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    // What is tested is what is delivered.
    build_static(std::env::consts::ARCH, log)?;
    let tests = build_tests(log)?;
    if run.existing {
        let kubeconfig = std::env::var_os("KUBECONFIG").context("--existing needs KUBECONFIG")?;
        let handle = cluster::existing(Path::new(&kubeconfig))?;
        return run_tests(run, log, &handle, &tests);
    }
    let was_up = cluster::status(DEFAULT_NAME)?.running;
    // Lazily: a value that is not wanted would be dropped at once, and take down what was found up.
    let _down = (!was_up || run.in_ci).then(|| TakeDown);
    let handle = cluster::up(&Options::default())?;
    if was_up {
        load_current_image()?;
    }
    run_tests(run, log, &handle, &tests)
}

/// Takes the cluster down that this run brought up, however the run ends.
struct TakeDown;

impl Drop for TakeDown {
    fn drop(&mut self) {
        if let Err(error) = cluster::down(DEFAULT_NAME) {
            say(&format!("the test cluster is not down: {error:#}"));
        }
    }
}

/// Builds the tests with the features of the whole workspace, so that `cargo test --workspace` and this
/// share what they build.
fn build_tests(log: &mut Log) -> Result<PathBuf> {
    let selected = ["--workspace", "--locked", "--features", FEATURE, "--test", "kubernetes", "--no-run"];
    log.run(Cargo::new("test").args(selected).into(), BUILD)?;
    let mut again = Cargo::new("test").args(selected).args(["--quiet", "--message-format", "json"]);
    let messages = run::output(again.command())?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["name"] == "kubernetes" && message["profile"]["test"] == true;
        is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo does not say where the cluster's tests are")
}

/// A cluster that runs since yesterday has yesterday's test image.
fn load_current_image() -> Result<()> {
    let archive = target_directory().join("testbox.tar");
    Programs::build()?.image(Kind::Testbox)?.write(&archive)?;
    cluster::load_images(DEFAULT_NAME, &[archive])
}

fn run_tests(run: &Run, log: &mut Log, handle: &Handle, tests: &Path) -> Result<()> {
    let filter = run.filter.as_deref().unwrap_or_default();
    let mut together = command(handle, tests)?;
    together.args(["--test-threads", AT_ONCE, "--skip", "alone::", filter]);
    let mut alone = command(handle, tests)?;
    alone.args(["--test-threads", "1", "--skip", "together::", filter]);
    if handle.name.is_none() {
        alone.args(["--skip", OWN_CLUSTER]);
        say(&format!("not applicable on a cluster that is not ours: the tests in {OWN_CLUSTER}"));
    }
    let together = log.run(together, LIMIT);
    let alone = log.run(alone, LIMIT);
    together.and(alone)
}

fn command(handle: &Handle, tests: &Path) -> Result<Command> {
    let mut command = handle.command(tests.as_os_str());
    command
        .current_dir(crate::paths::repository().join("e2e"))
        .env("STOCKADE_BIN", dist::check(std::env::consts::ARCH)?)
        .env("STOCKADE_E2E_LOGS", target_directory().join("xtask-test/servers"));
    if let Some(name) = &handle.name {
        command
            .env("STOCKADE_E2E_NODE_HOST", "127.0.0.1")
            .env("STOCKADE_XTASK", std::env::current_exe().context("where is this program?")?)
            .env("STOCKADE_E2E_CLUSTER", name);
    }
    Ok(command)
}
