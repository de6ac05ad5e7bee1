//! The benchmark of the agent: what callers wait for and what it uses, beside what the machine needs without it.
//! `cargo xtask bench agent` runs it on the static build.
//!
//! It prints one JSON row a line. Everything is bounded in count; of times nothing is asserted, of answers everything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot do its part ends")]

mod calls;
#[path = "../../tests/common/mod.rs"]
mod common;
mod load;
#[allow(dead_code, unused_imports, reason = "shared with the benchmark on Kubernetes")]
#[path = "../../../../e2e/src/bin/bench_kubernetes/rows.rs"]
mod rows;
mod search;
mod start;
mod transfer;

use std::process::Command;

use common::Agent;
use rows::Rows;

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let program = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_stockade-agent").to_owned());
    let mut rows = Rows;
    start::measure(&program, &mut rows);
    let agent = Agent::start_with(Command::new(&program), &[]);
    calls::measure(&agent, &mut rows);
    calls::measure_writes(&agent, &mut rows);
    transfer::measure(&agent, &mut rows);
    search::measure(&agent, &mut rows);
    // Last: what 64 sessions have printed stays with them.
    load::measure(&agent, &mut rows);
}
