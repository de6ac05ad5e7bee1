//! The benchmark of sandboxes on one machine: the delivered program over HTTP, through `stockade up`, beside
//! bubblewrap, runc and crun. `cargo xtask bench embedded` runs it.
//!
//! It prints one JSON row a line. Everything is bounded in count and in time; of times nothing is asserted, of answers
//! everything. What is left of sandboxes is a row of its own.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot do its part ends, with a message; it is no server"
)]

#[path = "../bench_kubernetes/bar.rs"]
mod bar;
mod beside;
mod calls;
mod cycles;
mod left;
mod many;
mod proc;
#[path = "../bench_kubernetes/process.rs"]
mod process;
mod rates;
#[allow(dead_code, reason = "shared with the benchmark on Kubernetes")]
#[path = "../bench_kubernetes/rows.rs"]
mod rows;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::beside::{Passed, Tool};
use crate::rows::Rows;
use crate::up::Up;

/// Measures sandboxes of this machine and prints rows of JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    part: Part,
    /// The program
    #[arg(long, env = "STOCKADE_BIN")]
    program: PathBuf,
    /// How many sandboxes are made and removed before it is looked what is left
    #[arg(long, default_value_t = 10_000)]
    cycles: usize,
    /// Other programs that are there to be measured beside it
    #[arg(long, value_enum, value_delimiter = ',')]
    tools: Vec<Tool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// One call after the other
    Calls,
    /// Several callers at once
    Rates,
    /// Many sandboxes at once, and their memory
    Many,
    /// What is left after many were made and removed
    Cycles,
    /// Other programs that make sandboxes
    Beside,
}

fn main() -> ExitCode {
    // Before anything else is opened: its number is what others are told.
    let passed = Passed::reserve();
    let arguments = Arguments::parse();
    // One thread: the machine is for what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::select! {
            () = measure(&arguments, passed) => ExitCode::SUCCESS,
            // Dropping the measurement ends what it started.
            () = told_to_end() => ExitCode::FAILURE,
        }
    })
}

async fn measure(arguments: &Arguments, passed: Passed) {
    let mut rows = Rows;
    if let Part::Beside = arguments.part {
        return beside::measure(&arguments.program, &arguments.tools, passed, &mut rows);
    }
    let up = Up::start(&arguments.program).await;
    match arguments.part {
        Part::Calls => calls::measure(&up, &mut rows).await,
        Part::Rates => rates::measure(&up, &mut rows).await,
        Part::Many => many::measure(&up, &mut rows).await,
        Part::Cycles => cycles::measure(&up, arguments.cycles, &mut rows).await,
        Part::Beside => {}
    }
    up.end();
}

async fn told_to_end() {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals");
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
