//! The tests with real sandboxes in Pods: the suite of the SDK, and the agent in images without it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::cluster_tests::{REAL, command, on_cluster};
use super::log::Log;
use super::suite::{self, Runner};
use super::{Run, sdk};
use crate::cargo::target_directory;
use crate::cluster::{self, Handle};
use crate::image::sandbox_images::Kind;

/// The one that runs the suite.
const SUITE: &str = "real::sdk::";
/// Four times of what they take on two cores.
const LIMIT: Duration = Duration::from_secs(8 * 60);

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    let environment = sdk::environment(log)?;
    on_cluster(run, log, |log, handle, tests| {
        load_images(handle)?;
        let filter = run.filter.as_deref();
        let others = suite::run(log, Runner::Libtest, LIMIT, || others(handle, tests, filter));
        let sdk = suite::run(log, Runner::Libtest, LIMIT, || {
            let mut sdk = command(handle, tests)?;
            sdk.args([SUITE, "--nocapture"])
                .env("STOCKADE_E2E_SDK_PYTHON", environment.python())
                .env("STOCKADE_E2E_SDK_FILTER", filter.unwrap_or_default());
            Ok(sdk)
        });
        others.and(sdk)
    })
}

fn others(handle: &Handle, tests: &Path, filter: Option<&str>) -> Result<std::process::Command> {
    let mut others = command(handle, tests)?;
    // libtest takes what matches any of its filters, so those that are not wanted are left out by name.
    others.args(["--skip", "alone::", "--skip", "together::", "--skip", SUITE]);
    others.arg(filter.unwrap_or(REAL));
    Ok(others)
}

/// Brings the images into the node of our own cluster; another's has them already.
fn load_images(handle: &Handle) -> Result<()> {
    let Some(name) = &handle.name else { return Ok(()) };
    for kind in Kind::ALL {
        let file = kind.reference().replace(['/', ':'], "-");
        let archive = target_directory().join(format!("{file}.tar"));
        kind.image()?.write(&archive)?;
        cluster::load_images(name, std::slice::from_ref(&archive))?;
        // Of hundreds of megabytes, and never read again.
        let _ = std::fs::remove_file(&archive);
    }
    Ok(())
}
