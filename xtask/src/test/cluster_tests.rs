//! The tests that need a cluster: builds them, brings the cluster up, runs them inside of its network.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Run;
use super::log::Log;
use super::stages::{build_static, build_tests};
use super::suite::{self, Runner};
use crate::cargo::target_directory;
use crate::cluster::{self, DEFAULT_NAME, Handle, Options};
use crate::dist::{self, Program};
use crate::image::test_images::{Kind, Programs};
use crate::progress::say;
use anyhow::{Context as _, Result};

/// Those that break the cluster for everybody.
const OWN_CLUSTER: &str = "alone::own_cluster::";
/// Those with real sandboxes, which are a stage of their own.
pub(super) const REAL: &str = "real::";
/// How many tests run at once: most of them wait for the kubelet most of the time.
const AT_ONCE: &str = "8";
/// Three times of what they take on two cores.
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    on_cluster(run, log, |log, handle, tests| run_tests(run, log, handle, tests))
}

/// Builds what is tested and its tests, and runs some of them on a cluster: the one that is given, the one
/// that is up, or a new one.
pub(super) fn on_cluster(
    run: &Run,
    log: &mut Log,
    test: impl FnOnce(&mut Log, &Handle, &Path) -> Result<()>,
) -> Result<()> {
    // What is tested is what is delivered.
    build_static(Program::Server, std::env::consts::ARCH, log)?;
    let tests = build_tests("kubernetes", log)?;
    if run.existing {
        let kubeconfig = std::env::var_os("KUBECONFIG").context("--existing needs KUBECONFIG")?;
        let handle = cluster::existing(Path::new(&kubeconfig))?;
        return test(log, &handle, &tests);
    }
    let was_up = cluster::status(DEFAULT_NAME)?.running;
    // Lazily: a value that is not wanted would be dropped at once, and take down what was found up.
    let _down = (!was_up || run.in_ci).then(|| TakeDown);
    let handle = cluster::up(&Options::default())?;
    if was_up {
        load_current_image()?;
    }
    test(log, &handle, &tests)
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

/// A cluster that runs since yesterday has yesterday's test image.
fn load_current_image() -> Result<()> {
    let archive = target_directory().join("testbox.tar");
    Programs::build()?.image(Kind::Testbox)?.write(&archive)?;
    cluster::load_images(DEFAULT_NAME, &[archive])
}

fn run_tests(run: &Run, log: &mut Log, handle: &Handle, tests: &Path) -> Result<()> {
    let filter = run.filter.as_deref().unwrap_or_default();
    if handle.name.is_none() {
        say(&format!("not applicable on a cluster that is not ours: the tests in {OWN_CLUSTER}"));
    }
    let together = suite::run(log, Runner::Libtest, LIMIT, || {
        let mut together = command(handle, tests)?;
        together.args(["--test-threads", AT_ONCE, "--skip", "alone::", "--skip", REAL, filter]);
        Ok(together)
    });
    let alone = suite::run(log, Runner::Libtest, LIMIT, || {
        let mut alone = command(handle, tests)?;
        alone.args(["--test-threads", "1", "--skip", "together::", "--skip", REAL, filter]);
        if handle.name.is_none() {
            alone.args(["--skip", OWN_CLUSTER]);
        }
        Ok(alone)
    });
    together.and(alone)
}

/// The tests, told where everything is.
pub(super) fn command(handle: &Handle, tests: &Path) -> Result<Command> {
    let mut command = handle.command(tests.as_os_str());
    command
        .current_dir(crate::paths::repository().join("e2e"))
        .env("STOCKADE_BIN", dist::check(Program::Server, std::env::consts::ARCH)?)
        .env("STOCKADE_E2E_LOGS", target_directory().join("xtask-test/servers"));
    if let Some(name) = &handle.name {
        command
            .env("STOCKADE_E2E_NODE_HOST", "127.0.0.1")
            .env("STOCKADE_XTASK", std::env::current_exe().context("where is this program?")?)
            .env("STOCKADE_E2E_CLUSTER", name);
    }
    Ok(command)
}
