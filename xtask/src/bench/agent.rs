//! `cargo xtask bench agent`: the sandbox agent as it is delivered, beside the budgets and the machine's own floor.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{print, rows_of};
use crate::cargo::Cargo;
use crate::progress::{Step, say};
use crate::{cluster, dist, run};

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Measure this program instead of building the static one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Agent) -> Result<()> {
    cluster::packages::ensure_programs(&[("rg", "ripgrep"), ("bash", "bash")])?;
    let program = match &arguments.binary {
        Some(program) => program.canonicalize()?,
        None => build()?,
    };
    let benchmark = ["--locked", "--package", "stockade-agent", "--bench", "agent"];
    let step = Step::start("release build of the benchmark");
    run::output(Cargo::new("bench").args(benchmark).args(["--no-run"]).command())?;
    step.done();
    let rows =
        rows_of(Cargo::new("bench").args(benchmark).args(["--quiet", "--"]).args([&program]).command())?;
    say("the floor is bash or ripgrep as a process of its own, and a copy between a socket and a file");
    print(&rows, arguments.json)
}

fn build() -> Result<PathBuf> {
    let step = Step::start("static build of the agent");
    let (program, architecture) = (dist::Program::Agent, std::env::consts::ARCH);
    run::output(&mut dist::build_command(program, architecture)?)?;
    step.done();
    dist::check(program, architecture)
}
