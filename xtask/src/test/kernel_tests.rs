//! The tests with real sandboxes once more, on Debian's own kernel in a virtual machine: control groups of version 2, and
//! what older kernels do otherwise.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Run;
use super::log::Log;
use super::stages::{build_programs, build_static};
use crate::cargo::target_directory;
use crate::dist::Program;
use crate::machine::{self, Machine};

/// Several times of what they take on two cores, emulated.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The programs of tests, by name: sandboxes from outside, control groups and networks, launches.
const TESTS: [&str; 3] = ["embedded", "stockade_embedded", "launch"];
/// What depends on the kernel, and is not busy for minutes where everything takes ten times as long. Time in an emulated
/// machine is no measure of processors.
const ALL: &str = "\
failed=0
/srv/stockade_embedded cgroup:: network::tests::open confine:: rootfs:: facts:: || failed=101
/srv/launch written writable survive owner mount missing link setuid unreadable || failed=101
/srv/embedded --test-threads 1 life::usual isolation::limits --skip processor_time || failed=101
exit $failed
";

pub(super) fn run(run: &Run, log: &mut Log) -> Result<()> {
    let machine = Machine::ensure()?;
    let server = build_static(Program::Server, std::env::consts::ARCH, log)?;
    let tests = build_programs(&["--lib", "--test", "embedded", "--test", "launch"], &TESTS, log)?;
    let scratch = target_directory().join("xtask-test/machine");
    // Of a run that was killed.
    let _ = fs::remove_dir_all(&scratch);
    let files = scratch.join("files");
    fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
    put(&server, &files.join("stockade"))?;
    for (name, program) in TESTS.iter().zip(&tests) {
        put(program, &files.join(name))?;
    }
    let script = run.filter.as_ref().map_or_else(
        || ALL.to_owned(),
        |filter| format!("exec /srv/embedded --test-threads 1 --skip sdk '{filter}'\n"),
    );
    let script = format!("uname -a\nexport STOCKADE_BIN=/srv/stockade RUST_BACKTRACE=0\n{script}");
    fs::write(files.join("run"), script).context("cannot write the script")?;
    let said = scratch.join("said");
    let started = machine.start(&files, &scratch, &said)?;
    let ran = log.run(started, LIMIT);
    let said = fs::read_to_string(&said).unwrap_or_default();
    log.say(&said)?;
    ran?;
    let code =
        machine::exit_code(&said).context("the machine ended before its tests; its console is above")?;
    ensure!(code == 0, "the tests in the machine ended with {code}");
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

fn put(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}
