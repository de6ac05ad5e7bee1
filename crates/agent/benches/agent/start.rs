//! Size, start and idleness.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Agent;
use crate::rows::{Row, Rows};

const STARTS: usize = 50;

pub(crate) fn measure(program: &str, rows: &mut Rows) {
    let size = std::fs::metadata(program).unwrap().len();
    rows.add(
        &Row { what: "binary".to_owned(), unit: "MB", count: 1, ours: megabytes(size), ..Row::default() }
            .budget(6.0),
    );

    let starts: Vec<Duration> = (0..STARTS)
        .map(|_| {
            let began = Instant::now();
            let agent = Agent::start_with(Command::new(program), &[]);
            assert_eq!(agent.client().get("/v1/sandbox").status, 200);
            began.elapsed()
        })
        .collect();
    rows.add(&Row::times("exec of the agent to its first 200", &starts).budget(10.0));

    let agent = Agent::start_with(Command::new(program), &[]);
    rows.add(&memory("resident, just started", agent.resident()).budget(3.0));
    assert_eq!(agent.client().get("/v1/sandbox").status, 200);
    rows.add(&memory("resident, idle after a request", agent.resident()).budget(3.0));
}

/// A row about memory given in KiB.
pub(crate) fn memory(what: &str, kib: u64) -> Row {
    Row { what: what.to_owned(), unit: "MB", count: 1, ours: megabytes(kib * 1024), ..Row::default() }
}

#[allow(clippy::cast_precision_loss, reason = "no file or process here has 2^52 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
