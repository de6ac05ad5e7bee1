//! A suite: a program that runs tests. Its failed tests are run again, alone, so that a flaky test is told from a broken
//! change.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::counts::{self, Counts};
use super::log::Log;
use crate::run::tail;

/// How often a failed test has to pass, alone, to count as flaky.
const AGAIN: usize = 2;
/// So many failed tests are no accident.
const MOST: usize = 10;
/// How much is kept of a failure that has no list of its own.
const SHOWN: usize = 80;

/// What runs the tests: how it names those that failed, and how it is told to run one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runner {
    /// `cargo test`: many programs of tests, one of them with a harness of its own.
    Cargo,
    /// One program of tests.
    Libtest,
    /// pytest, in several processes.
    Pytest,
}

/// Tests that failed among the others and passed alone.
#[derive(Debug)]
pub(super) struct Flaky {
    /// Their names.
    pub(super) names: Vec<String>,
    /// What they printed when they failed.
    pub(super) output: String,
}

/// Runs a suite. `command` makes its command, once for the whole and once for each failed test.
///
/// # Errors
/// When it cannot be run, when a test fails again, or when more failed than single tests.
pub(super) fn run(
    log: &mut Log,
    runner: Runner,
    limit: Duration,
    command: impl Fn() -> Result<Command>,
) -> Result<()> {
    let start = log.text().len();
    let Err(error) = log.run(command()?, limit) else { return Ok(()) };
    let output = log.text().split_off(start);
    let names = runner.failed(&output);
    if names.is_empty() || names.len() > MOST {
        return Err(error);
    }
    // A log of its own: the stage's is counted.
    let mut again = Log::create(log.path().with_extension("again.log"))?;
    for name in &names {
        for _ in 0..AGAIN {
            let passed = pass_alone(&mut again, runner, limit, command()?, name);
            if let Err(second) = passed {
                log.say(&format!("`{name}` failed again, alone: {second:#}"))?;
                return Err(error);
            }
        }
    }
    let output = counts::failures(&output).unwrap_or_else(|| tail(output.trim_end(), SHOWN));
    log.add_flaky(Flaky { names, output });
    Ok(())
}

fn pass_alone(
    log: &mut Log,
    runner: Runner,
    limit: Duration,
    mut command: Command,
    name: &str,
) -> Result<()> {
    match runner {
        Runner::Cargo => command.args(["--", "--exact", name]),
        Runner::Libtest => command.args(["--exact", name]),
        // The last of an option holds.
        Runner::Pytest => command.args(["--numprocesses", "0", name]),
    };
    let start = log.text().len();
    log.run(command, limit)?;
    let output = log.text().split_off(start);
    ensure!(
        Counts::of(&output).passed > 0 || of_own_harness(&output, "ok").any(|passed| passed == name),
        "no test of this name was run; see {}",
        log.path().display()
    );
    Ok(())
}

impl Runner {
    /// The names of the failed tests; none when something else failed too, a program that was killed for example.
    fn failed(self, output: &str) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Pytest => pytest_failures(output).map(str::to_owned).collect(),
            Self::Cargo | Self::Libtest => libtest_failures(output),
        };
        if self == Self::Cargo {
            let mut programs = output.lines().filter(|line| line.starts_with("test result: FAILED")).count();
            let own: Vec<&str> = of_own_harness(output, "FAILED").collect();
            programs += usize::from(!own.is_empty());
            names.extend(own.into_iter().map(str::to_owned));
            // Cargo's own list, at the end: a program that is not among those above ended in another way.
            let listed = output.lines().filter(|line| line.trim_start().starts_with("`-p ")).count();
            if listed != programs {
                return Vec::new();
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The list at the end of each program that had failures: indented names after the second `failures:`.
fn libtest_failures(output: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut listed: Vec<String> = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        if line == "failures:" {
            inside = true;
            listed.clear();
        } else if line.starts_with("test result: ") {
            inside = false;
            names.append(&mut listed);
        } else if inside && let Some(name) = line.strip_prefix("    ") {
            listed.push(name.to_owned());
        } else if inside && !line.is_empty() {
            // The first `failures:` is followed by what the tests printed, which may be indented too.
            inside = false;
        }
    }
    names
}

/// `FAILED tests/test_x.py::test_y[z] - why` in pytest's summary, and `ERROR` likewise.
fn pytest_failures(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| {
        let rest = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))?;
        let name = rest.split(" - ").next()?;
        name.contains("::").then_some(name)
    })
}

/// Of the launches' harness: `Root, layers on disk NAME ... FAILED`.
fn of_own_harness<'a>(output: &'a str, outcome: &'a str) -> impl Iterator<Item = &'a str> {
    output.lines().filter_map(move |line| {
        let rest = line.strip_suffix(outcome)?.strip_suffix(" ... ")?;
        let is_launch = rest.starts_with("Root") || rest.starts_with("Ordinary");
        rest.rsplit(' ').next().filter(|_| is_launch)
    })
}

/// What a reader of a green run has to know of its flaky tests, and mend next.
pub(super) fn report(flaky: &[Flaky], log: &Path) -> String {
    let mut text = String::new();
    for Flaky { names, output } in flaky {
        for name in names {
            text.push_str(&format!("FLAKY: {name} failed, and passed {AGAIN} times alone\n"));
        }
        text.push_str(output.trim_end());
        text.push('\n');
    }
    text.push_str(&format!("the whole log: {}", log.display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO: &str = "\
running 2 tests
test a::b ... FAILED

failures:

---- a::b stdout ----
    indented
left != right

failures:
    a::b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

Root, layers on disk a_launch ... FAILED
Root another ... ok
error: 2 targets failed:
    `-p x --lib`
    `-p y --test launch`
";

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(Runner::Cargo.failed(CARGO), ["a::b", "a_launch"]);
        assert_eq!(Runner::Libtest.failed(CARGO), ["a::b"]);
        let pytest = "..F\nFAILED tests/test_x.py::test_y[a b] - assert 1 == 2\nERROR tests/test_x.py::test_z\n1 failed in 2s\n";
        assert_eq!(
            Runner::Pytest.failed(pytest),
            ["tests/test_x.py::test_y[a b]", "tests/test_x.py::test_z"]
        );
    }

    #[test]
    fn a_program_that_crashed_is_not_explained_by_single_tests() {
        let crashed = format!("{CARGO}    `-p z --lib`\n");
        assert_eq!(Runner::Cargo.failed(&crashed), [""; 0]);
        assert_eq!(Runner::Libtest.failed("running 3 tests\ntest a ... "), [""; 0]);
    }

    /// A program that looks like one of tests: fails as a whole, and alone as `alone` says.
    fn suite(directory: &Path, alone: &str) -> (Result<()>, Log) {
        let script = format!(
            "case \"$*\" in *--exact*) {alone};; *) printf 'failures:\\n    x::y\\n\\ntest result: FAILED. 0 passed; 1 failed;\\n'; exit 101;; esac"
        );
        let mut log = Log::create(directory.join("log")).unwrap();
        let result = run(&mut log, Runner::Libtest, Duration::from_secs(10), || {
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh"]);
            Ok(command)
        });
        (result, log)
    }

    #[test]
    fn a_test_that_passes_alone_is_flaky_and_no_failure() {
        let directory = tempfile::tempdir().unwrap();
        let (result, log) = suite(directory.path(), "echo 'test result: ok. 1 passed; 0 failed;'");
        result.unwrap();
        assert_eq!(log.flaky()[0].names, ["x::y"]);
        let report = report(log.flaky(), log.path());
        assert!(report.contains("FLAKY: x::y failed"), "{report}");
    }

    #[test]
    fn a_test_that_fails_alone_or_is_not_run_alone_is_a_failure() {
        for alone in ["exit 101", "echo 'test result: ok. 0 passed; 0 failed;'"] {
            let directory = tempfile::tempdir().unwrap();
            let (result, log) = suite(directory.path(), alone);
            assert!(result.is_err() && log.flaky().is_empty(), "{alone}");
            assert!(log.text().contains("failed again, alone"), "{}", log.text());
        }
    }
}
