//! `cargo xtask bench embedded`: sandboxes of one machine by the program as it is delivered, beside the budgets and
//! beside other programs that make sandboxes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use super::{print, rows_of};
use crate::cargo::{Cargo, target_directory};
use crate::progress::{Step, say};
use crate::{cluster, dist, run};

/// What is measured, in this order: each with a server of its own.
const PARTS: [&str; 5] = ["calls", "rates", "many", "beside", "cycles"];
/// Other programs, and their packages.
const TOOLS: [(&str, &str); 3] = [("bwrap", "bubblewrap"), ("runc", "runc"), ("crun", "crun")];

/// Where the second version of control groups is mounted on machines that have both.
const SECOND_GROUPS: &str = "/sys/fs/cgroup/unified";

#[derive(Debug, Args)]
pub(super) struct Embedded {
    /// Measure this program instead of building the static one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_parser = PARTS, value_delimiter = ',')]
    only: Vec<String>,
    /// How many sandboxes are made and removed before it is looked what is left of them
    #[arg(long, default_value_t = 10_000)]
    cycles: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Embedded) -> Result<()> {
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    let tools = if wanted("beside") { tools() } else { Vec::new() };
    if wanted("cycles")
        && let Err(why) = cluster::packages::ensure_programs(&[("nft", "nftables")])
    {
        say(&format!("elements of nft sets are not counted: {why:#}"));
    }
    let program = match &arguments.binary {
        Some(program) => program.canonicalize()?,
        None => build()?,
    };
    let benchmark = build_benchmark()?;
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| wanted(part)) {
        rows.extend(rows_of(&mut command(&benchmark, &program, part, arguments.cycles, &tools))?);
    }
    say(
        "the floor is an answer of the server that says nothing, and bash as a process of its own; the reference is",
    );
    say("DeerFlow's provisioner on Kubernetes, and beside other programs theirs");
    print(&rows, arguments.json)?;
    let left: Vec<&str> =
        rows.iter().filter(|row| is_left(row)).filter_map(|row| row["what"].as_str()).collect();
    ensure!(left.is_empty(), "something is left of sandboxes that were removed: {}", left.join(", "));
    Ok(())
}

/// A row about what should not be there.
fn is_left(row: &Value) -> bool {
    let unit_says = row["unit"].as_str().is_some_and(|unit| unit.ends_with("left"));
    // Also a figure below: something that was there is not.
    unit_says
        && row["ours"]
            .as_f64()
            .zip(row["budget"].as_f64())
            .is_some_and(|(ours, budget)| ours > budget || (budget == 0.0 && ours != 0.0))
}

/// Those that can be had; the others are named.
fn tools() -> Vec<&'static str> {
    let there = |(program, package): &(&'static str, &'static str)| {
        let ensured = cluster::packages::ensure_programs(&[(program, package)]);
        if let Err(why) = &ensured {
            say(&format!("{package} is skipped: {why:#}"));
        }
        ensured.is_ok().then_some(*program)
    };
    TOOLS.iter().filter_map(there).collect()
}

fn build() -> Result<PathBuf> {
    let step = Step::start("static release build of the program");
    run::output(&mut dist::build_command(dist::Program::Server, std::env::consts::ARCH)?)?;
    step.done();
    dist::check(dist::Program::Server, std::env::consts::ARCH)
}

fn build_benchmark() -> Result<PathBuf> {
    let step = Step::start("release build of the benchmark");
    let bench = ["--locked", "--release", "--package", "stockade-e2e", "--bin", "bench-embedded"];
    run::output(Cargo::new("build").args(bench).command())?;
    step.done();
    Ok(target_directory().join("release/bench-embedded"))
}

fn command(benchmark: &Path, program: &Path, part: &str, cycles: u32, tools: &[&str]) -> Command {
    let mut command = if part == "beside" && Path::new(SECOND_GROUPS).exists() {
        // crun refuses machines that have both versions of control groups; the second goes from its sight.
        let mut command = Command::new("unshare");
        let script = format!("umount {SECOND_GROUPS} && exec \"$@\"");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(benchmark);
        command
    } else {
        Command::new(benchmark)
    };
    command.arg(part).arg("--program").arg(program).args(["--cycles", &cycles.to_string()]);
    if !tools.is_empty() {
        command.args(["--tools", &tools.join(",")]);
    }
    command
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_is_told_from_what_may_be() {
        let row =
            |unit: &str, ours: f64, budget: f64| json!({ "unit": unit, "ours": ours, "budget": budget });
        assert!(is_left(&row("left", 1.0, 0.0)) && is_left(&row("left", -1.0, 0.0)));
        assert!(!is_left(&row("left", 0.0, 0.0)) && !is_left(&row("ms", 7.0, 5.0)));
        assert!(is_left(&row("MB left", 5.0, 4.0)) && !is_left(&row("MB left", -1.0, 4.0)));
    }
}
