//! `cargo xtask test`: the one command that runs all tests.
//!
//! A stage is a check of one kind, with a log of its own. Stages run one after the other, cheap ones first,
//! and all of them even when one fails: who waits half an hour wants to know everything. A test that fails is run again
//! alone; when it passes then, twice, the run is green and ends with a list of such tests, which are to be mended.

mod cluster_tests;
mod counts;
mod deny;
mod embedded_tests;
mod green;
mod kernel_tests;
mod log;
mod real_tests;
mod sdk;
mod stages;
mod suite;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use self::counts::Counts;
use self::log::Log;
use self::stages::Stage;
use crate::cargo::target_directory;
use crate::progress::{Step, answer, say};
use crate::run::tail;

/// How much of a failed stage's log is shown when it has no list of failed tests.
const SHOWN: usize = 80;

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Leave out what takes minutes or needs more than Rust: the cluster, the static builds, the dependency
    /// check, the SDK
    #[arg(long)]
    fast: bool,
    /// Run the cluster's tests on the cluster of $KUBECONFIG instead of one of our own.
    /// Its nodes need the images stockade.local/{testbox,sandbox,debian,agent}:dev (`cargo xtask image`), and have to see
    /// STOCKADE_E2E_HOST_DIR at the same path as this machine; STOCKADE_E2E_NODE_HOST is where NodePorts
    /// answer [default: a node's internal address]
    #[arg(long, conflicts_with = "fast")]
    existing: bool,
    /// Only these stages
    #[arg(long, value_enum, value_name = "STAGE", conflicts_with = "fast")]
    only: Vec<Stage>,
    /// Only those of the cluster's and the SDK's tests whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// What stages know of the run.
#[derive(Debug)]
pub(crate) struct Run {
    existing: bool,
    filter: Option<String>,
    in_ci: bool,
    /// One of its stages builds what is delivered for this machine.
    builds_static: bool,
}

/// Runs the stages, says how each went, and closes with the sum.
///
/// # Errors
/// When one of them failed.
pub fn run(arguments: &Test) -> Result<()> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let partial =
        arguments.fast || arguments.existing || !arguments.only.is_empty() || arguments.filter.is_some();
    ensure!(!(in_ci && partial), "CI=true: nothing may be left out; unset CI for a part of the tests");
    let chosen = Stage::all().filter(|stage| {
        if arguments.only.is_empty() {
            !stage.is_on_demand() && (!arguments.fast || stage.is_fast())
        } else {
            arguments.only.contains(stage)
        }
    });
    let chosen: Vec<Stage> = chosen.collect();
    let run = Run {
        existing: arguments.existing,
        filter: arguments.filter.clone(),
        in_ci,
        builds_static: chosen.iter().any(|stage| stage.is_static_here()),
    };
    let started = Instant::now();
    let tree = (!partial).then(green::tree).transpose()?.flatten();
    let mut sum = Counts::default();
    let mut failed = Vec::new();
    let mut flaky = Vec::new();
    for stage in chosen {
        let (counts, log) = one(&run, stage)?;
        if counts.failed > 0 {
            failed.push(stage.name());
        }
        if !log.flaky().is_empty() {
            flaky.push(suite::report(log.flaky(), log.path()));
        }
        sum += counts;
    }
    for report in &flaky {
        say(report);
    }
    say(&format!("all stages: {:.0} s", started.elapsed().as_secs_f32()));
    if !failed.is_empty() {
        say(&format!("failed: {}", failed.join(", ")));
    }
    answer(&sum.to_string());
    if !failed.is_empty() {
        bail!("some tests failed; see above");
    }
    tree.map_or(Ok(()), |tree| green::record(&tree))
}

/// Runs one stage. Its failure is a count; an error is that it could not even be written down.
fn one(run: &Run, stage: Stage) -> Result<(Counts, Log)> {
    let directory = target_directory().join("xtask-test");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut log = Log::create(directory.join(format!("{}.log", stage.name())))?;
    let started = Instant::now();
    let step = std::io::stderr().is_terminal().then(|| Step::start(stage.name()));
    let result = stage.run(run, &mut log);
    drop(step);
    let text = log.text();
    let mut counts = Counts::of(&text);
    if result.is_ok() {
        // What passed when it was run again; the log has its failures too.
        counts.passed += std::mem::take(&mut counts.failed);
    }
    let tests = counts;
    let result = result.and_then(|()| {
        ensure!(!run.in_ci || counts.skipped == 0, "CI=true and {} tests were skipped", counts.skipped);
        Ok(())
    });
    // A stage that is no test, or whose tests could not even start.
    if result.is_err() && counts.failed == 0 {
        counts.failed = 1;
    }
    tell(stage, &result, tests, started.elapsed(), &log);
    Ok((counts, log))
}

fn tell(stage: Stage, result: &Result<()>, counts: Counts, took: Duration, log: &Log) {
    let tests = if counts.is_empty() { String::new() } else { format!(" ({counts})") };
    let word = match (result, log.flaky().is_empty()) {
        (Ok(()), true) => "ok",
        (Ok(()), false) => "flaky",
        (Err(_), _) => "FAILED",
    };
    say(&format!("{:<12} {word:<6} {:>6.1} s{tests}", stage.name(), took.as_secs_f32()));
    if let Ok(Some(note)) = result.as_ref().map(|()| stage.note()) {
        say(&format!("{:<12} {note}", ""));
    }
    if let Err(error) = result {
        let text = log.text();
        let shown = counts::failures(&text).unwrap_or_else(|| tail(text.trim_end(), SHOWN));
        say(&format!("{shown}\n{error:#}\nthe whole log: {}", log.path().display()));
    }
}
