//! Several callers at once.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::bar::bar;
use crate::calls::wait_for_count;
use crate::rows::{Row, Rows};
use crate::up::{Network, Up, first_answer};

/// Rates are measured in turns.
const TURNS: usize = 5;
/// What one turn makes.
const TURN: usize = 400;

pub(crate) async fn measure(up: &Up, rows: &mut Rows) {
    // The first ones meet a cold machine.
    turn(up, 4, Network::Isolated, After::Delete).await;
    for (callers, network, budget) in [
        (4, Network::Isolated, Some(150.0)),
        (16, Network::Isolated, Some(150.0)),
        (4, Network::Open, None),
        (16, Network::Open, None),
    ] {
        let name = if network == Network::Open { ", open" } else { "" };
        let (mut creates, mut both) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            creates.push(turn(up, callers, network, After::Keep).await);
            both.push(turn(up, callers, network, After::Delete).await);
        }
        let count = TURNS * TURN;
        let row = |what: String, rates: Vec<f64>| Row {
            what,
            unit: "1/s",
            count,
            ours: median(rates),
            budget,
            ..Row::default()
        };
        rows.add(&row(format!("creates, {callers} callers{name}, to first 200"), creates));
        rows.add(&row(format!("creates and deletes, {callers} callers{name}"), both));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It is deleted by its caller, before that makes the next.
    Delete,
    /// All are deleted when all are there.
    Keep,
}

/// All callers create and wait for the first answer; how many a second.
async fn turn(up: &Up, callers: usize, network: Network, after: After) -> f64 {
    let bar = bar(&format!("{callers} callers"), TURN);
    let started = Instant::now();
    join_all((0..callers).map(|worker| {
        let (caller, bar) = (up.caller(), bar.clone());
        async move {
            for number in (worker..TURN).step_by(callers) {
                let url = caller.create(number, network).await;
                first_answer(&url).await;
                if after == After::Delete {
                    caller.delete(number).await;
                }
                bar.inc(1);
            }
        }
    }))
    .await;
    let took = started.elapsed();
    let caller = up.caller();
    if after == After::Keep {
        for number in 0..TURN {
            caller.delete(number).await;
        }
    }
    wait_for_count(&caller, 0).await;
    up.wait_gone().await;
    rate(TURN, took)
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
