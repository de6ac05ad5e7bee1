//! The benchmark on Kubernetes: what callers wait for, beside what the same cluster takes from a bare
//! client that writes the same objects. `cargo xtask bench kubernetes` runs it, once on a control plane
//! (calls, throughput, memory) and on a whole cluster (time to the first answer, and as DeerFlow waits for it).
//!
//! It prints one JSON row a line. Everything is bounded in count, nothing is asserted.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot do its part ends, with a message; it is no server"
)]

mod acquire;
mod bar;
mod calls;
mod first_answer;
mod floor;
mod objects;
mod process;
mod rows;
mod subject;

use clap::{Parser, ValueEnum};

use crate::rows::Rows;
use crate::subject::Subject;

/// Measures a provisioner and prints rows of JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    part: Part,
    /// A provisioner that runs already [default: $STOCKADE_BIN, started for the purpose]
    #[arg(long)]
    url: Option<String>,
    /// Its key
    #[arg(long, env = "PROVISIONER_API_KEY", hide_env_values = true, requires = "url")]
    key: Option<String>,
    /// The namespace that it uses
    #[arg(long, default_value = "deer-flow", requires = "url")]
    namespace: String,
    /// Its process id, for its memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// Calls, throughput, memory: needs no node
    Calls,
    /// From the POST to the first answer of the sandbox
    FirstAnswer,
    /// The same as DeerFlow's provider does it
    Acquire,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let mut rows = Rows;
    if matches!(arguments.part, Part::Acquire) {
        return acquire::measure(&arguments, &mut rows).await;
    }
    // What is measured here is the create alone.
    let subject = Subject::find(&arguments, Some("0")).await;
    match arguments.part {
        Part::Calls => calls::measure(&subject, &mut rows).await,
        Part::FirstAnswer => first_answer::measure(&subject, &mut rows).await,
        Part::Acquire => {}
    }
    subject.end().await;
}
