//! The tests with real sandboxes of this machine: attacked from inside, their servers killed, and the suite of the SDK
//! in them.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::log::Log;
use super::stages::{build_static, build_tests};
use super::suite::{self, Runner};
use super::{Run, sdk};
use crate::cluster::packages;
use crate::dist::Program;

/// Three times of what they take on two cores, as root and as an ordinary user.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// What tests and attacks need: a program, and its Debian package.
const NEEDED: [(&str, &str); 5] = [
    ("setpriv", "util-linux"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("pgrep", "procps"),
    ("ip", "iproute2"),
];

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    packages::ensure_programs(&NEEDED)?;
    let environment = sdk::environment(log)?;
    // What is tested is what is delivered.
    let server = build_static(Program::Server, std::env::consts::ARCH, log)?;
    let program = build_tests("embedded", log)?;
    suite::run(log, Runner::Libtest, LIMIT, || {
        let mut tests = Command::new(&program);
        tests
            .current_dir(crate::paths::repository().join("e2e"))
            // Each fills the machine: they take turns anyway, and their time is not to run while they wait.
            .args(["--test-threads", "1", run.filter.as_deref().unwrap_or_default()])
            .env("STOCKADE_BIN", &server)
            .env("STOCKADE_E2E_SDK_PYTHON", environment.python());
        Ok(tests)
    })
}
