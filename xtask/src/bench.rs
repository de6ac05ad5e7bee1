//! `cargo xtask bench`: the delivered program beside the budgets of the design and the machine's own floor.

mod agent;
mod embedded;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cargo::{Cargo, target_directory};
use crate::cluster::{self, Handle, Options};
use crate::progress::{Step, answer, say};
use crate::{dist, run};

/// Of the control plane that calls are measured on: without a node, whose Pods would share its processors.
const CONTROL_PLANE: &str = "bench";

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The server on Kubernetes: calls, throughput, memory, time to the first answer
    Kubernetes(Kubernetes),
    /// Sandboxes of this machine: calls, throughput, memory, what is left, beside other programs
    Embedded(embedded::Embedded),
    /// The sandbox agent: calls, load, transfers, searches, memory
    Agent(agent::Agent),
}

#[derive(Debug, Args)]
struct Kubernetes {
    /// Measure the provisioner that runs here instead (ours or another), on the cluster of $KUBECONFIG
    #[arg(long)]
    url: Option<String>,
    /// Its key
    #[arg(long, requires = "url", env = "PROVISIONER_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The namespace that it uses [default: deer-flow]
    #[arg(long, requires = "url")]
    namespace: Option<String>,
    /// Its process id, for its memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// The network namespace to call from, when the cluster is one of ours (`cargo xtask cluster env`)
    #[arg(long, requires = "url", env = "STOCKADE_CLUSTER_NETNS")]
    netns: Option<PathBuf>,
    /// Only one part
    #[arg(long, value_parser = ["calls", "first-answer", "acquire"])]
    only: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// When something does not build, run, or answer.
pub fn run(arguments: &Bench) -> Result<()> {
    match &arguments.what {
        What::Kubernetes(arguments) => kubernetes(arguments),
        What::Embedded(arguments) => embedded::run(arguments),
        What::Agent(arguments) => agent::run(arguments),
    }
}

fn kubernetes(arguments: &Kubernetes) -> Result<()> {
    let program = build()?;
    let mut rows = Vec::new();
    for part in ["calls", "first-answer", "acquire"] {
        if arguments.only.as_deref().is_none_or(|only| only == part) {
            rows.extend(measure(arguments, &program, part)?);
        }
    }
    say("the floor is what a bare client needs for the same on the same cluster");
    print(&rows, arguments.json)
}

fn print(rows: &[Value], as_json: bool) -> Result<()> {
    if as_json {
        answer(&serde_json::to_string_pretty(&json!({ "rows": rows }))?);
    } else {
        answer(&table(rows));
    }
    Ok(())
}

/// The benchmark, and the server as it is delivered.
fn build() -> Result<PathBuf> {
    let step = Step::start("release builds of the server and the benchmark");
    run::output(&mut dist::build_command(dist::Program::Server, std::env::consts::ARCH)?)?;
    let bench = ["--locked", "--release", "--package", "stockade-e2e", "--bin", "bench-kubernetes"];
    run::output(Cargo::new("build").args(bench).command())?;
    step.done();
    Ok(target_directory().join("release/bench-kubernetes"))
}

fn measure(arguments: &Kubernetes, program: &Path, part: &str) -> Result<Vec<Value>> {
    if let Some(url) = &arguments.url {
        let kubeconfig = std::env::var_os("KUBECONFIG").context("--url needs KUBECONFIG, for the floor")?;
        let mut handle = cluster::existing(Path::new(&kubeconfig))?;
        handle.netns.clone_from(&arguments.netns);
        let mut command = handle.command(program.as_os_str());
        command.args([part, "--url", url]);
        if let Some(key) = &arguments.key {
            // Not as an argument: those are for everybody to read.
            command.env("PROVISIONER_API_KEY", key);
        }
        if let Some(namespace) = &arguments.namespace {
            command.args(["--namespace", namespace]);
        }
        if let Some(pid) = arguments.pid {
            command.args(["--pid", &pid.to_string()]);
        }
        return rows_of(&mut command);
    }
    let control_plane_only = part == "calls";
    let name = if control_plane_only { CONTROL_PLANE } else { cluster::DEFAULT_NAME };
    let was_up = cluster::status(name)?.running;
    let handle = cluster::up(&Options { name: name.to_owned(), control_plane_only })?;
    let rows = rows_of(&mut own_command(&handle, program, part)?);
    if !was_up {
        cluster::down(name)?;
    }
    rows
}

fn own_command(handle: &Handle, program: &Path, part: &str) -> Result<std::process::Command> {
    let mut command = handle.command(program.as_os_str());
    command
        .arg(part)
        .env_remove("PROVISIONER_API_KEY")
        .env("STOCKADE_BIN", dist::check(dist::Program::Server, std::env::consts::ARCH)?)
        .env("STOCKADE_E2E_NODE_HOST", "127.0.0.1")
        .env("STOCKADE_E2E_LOGS", target_directory().join("xtask-bench"));
    Ok(command)
}

/// Its progress goes to our standard error, its rows are read.
fn rows_of(command: &mut std::process::Command) -> Result<Vec<Value>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("cannot run the benchmark")?;
    ensure!(output.status.success(), "the benchmark failed with {}", output.status);
    let text = String::from_utf8(output.stdout).context("the benchmark's rows are no text")?;
    text.lines().map(|line| serde_json::from_str(line).context("a row is no JSON")).collect()
}

/// One line a row; a budget that is missed is marked.
fn table(rows: &[Value]) -> String {
    let mut lines = vec![format!(
        "{:<36}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}  {:<12}{:>6}",
        "", "ours", "p95", "p99", "floor", "budget", "reference", "unit", "count"
    )];
    for row in rows {
        let number = |name: &str| row[name].as_f64().map_or_else(String::new, figure);
        let missed = match (row["ours"].as_f64(), row["budget"].as_f64()) {
            (Some(ours), Some(budget)) if is_rate(row) => ours < budget,
            (Some(ours), Some(budget)) => ours > budget,
            _ => false,
        };
        lines.push(format!(
            "{:<36}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}  {:<12}{:>6}{}",
            row["what"].as_str().unwrap_or_default(),
            number("ours"),
            number("p95"),
            number("p99"),
            number("floor"),
            number("budget"),
            number("reference"),
            row["unit"].as_str().unwrap_or_default(),
            row["count"],
            if missed { "  over budget" } else { "" }
        ));
    }
    say("medians; rates are medians of turns");
    lines.join("\n")
}

/// Of a rate more is better.
fn is_rate(row: &Value) -> bool {
    row["unit"].as_str().is_some_and(|unit| unit.ends_with("/s"))
}

fn figure(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_budget_is_marked_and_a_rate_is_better_when_higher() {
        let slow = json!({"what": "get", "unit": "ms", "count": 1, "ours": 2.0, "budget": 1.0});
        let good = json!({"what": "rate", "unit": "1/s", "count": 1, "ours": 2.0, "budget": 1.0});
        let table = table(&[slow, good]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].ends_with("over budget") && !lines[2].ends_with("over budget"), "{table}");
    }
}
