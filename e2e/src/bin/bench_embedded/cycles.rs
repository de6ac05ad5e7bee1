//! Many sandboxes made and removed, and what is left of them.

use std::io::Write;
use std::time::{Duration, Instant};

use futures::future::join_all;
use stockade_e2e::wait;

use crate::bar::bar;
use crate::calls::wait_for_count;
use crate::left::{KINDS, LAUNCHER, Left, RELAY, memory_groups, sees_sets};
use crate::many::rss;
use crate::rates::rate;
use crate::rows::{Row, Rows};
use crate::up::{Network, Up, first_answer};

const CALLERS: usize = 4;
/// Before it is looked the first time: pools are full then, and threads there.
const WARM_UP: usize = 200;
/// How long what was removed may take to be gone: the kernel removes networks when it has time.
const SETTLED: Duration = Duration::from_secs(60);
/// The memory a process may have more of than before, in megabytes: its heap is not counted to the byte.
const GROWTH: f64 = 4.0;

pub(crate) async fn measure(up: &Up, count: usize, rows: &mut Rows) {
    cycles(up, WARM_UP).await;
    let before = settled(up).await;
    // Sandboxes with a way out were made: where theirs are not found, nothing would be either if it were left.
    assert!(before.count("interfaces") > 0, "the interfaces of sandboxes have other names than expected");
    let (memory_before, groups_before) = (memory(up), memory_groups());
    let started = Instant::now();
    cycles(up, count).await;
    let ours = rate(count, started.elapsed());
    let what = format!("cycles, {CALLERS} callers, both networks");
    rows.add(&Row { what, unit: "1/s", count, ours, ..Row::default() });

    let differences = compare(up, &before).await;
    for line in &differences {
        let _ = writeln!(std::io::stderr(), "left: {line}");
    }
    let after = Left::now(up);
    for kind in KINDS {
        if kind == "elements of nft sets" && !sees_sets() {
            let _ = writeln!(std::io::stderr(), "{kind} are not counted: there is no nft");
            continue;
        }
        let part = differences.iter().filter(|line| line.starts_with(&format!("{kind}:"))).count();
        let more = difference(after.count(kind), before.count(kind));
        // One gone and another there instead is a difference too.
        let ours = if more == 0.0 && part > 0 { part as f64 } else { more };
        rows.add(&left(kind, count, ours, 0.0));
    }
    for ((name, before), (_, after)) in memory_before.iter().zip(memory(up)) {
        let ours = (f64::from(after) - f64::from(*before)) / 1e3;
        rows.add(&Row { unit: "MB left", ..left(&format!("memory, {name}"), count, ours, GROWTH) });
    }
    if let (Some(before), Some(after)) = (groups_before, memory_groups()) {
        let ours = after as f64 - before as f64;
        let what = "memory groups the kernel still holds".to_owned();
        rows.add(&Row { what, unit: "more", count, ours, ..Row::default() });
    }
}

fn left(kind: &str, count: usize, ours: f64, budget: f64) -> Row {
    let what = format!("left: {kind}");
    Row { what, unit: "left", count, ours, budget: Some(budget), ..Row::default() }
}

fn difference(after: usize, before: usize) -> f64 {
    after as f64 - before as f64
}

/// Makes and removes so many, half of them with a way out.
async fn cycles(up: &Up, count: usize) {
    let bar = bar("made and removed", count);
    join_all((0..CALLERS).map(|worker| {
        let (caller, bar) = (up.caller(), bar.clone());
        async move {
            for number in (worker..count).step_by(CALLERS) {
                let network =
                    if (number / CALLERS).is_multiple_of(2) { Network::Isolated } else { Network::Open };
                first_answer(&caller.create(number, network).await).await;
                caller.delete(number).await;
                bar.inc(1);
            }
        }
    }))
    .await;
    wait_for_count(&up.caller(), 0).await;
    up.wait_gone().await;
}

/// What there is once two looks in a row agree.
async fn settled(up: &Up) -> Left {
    let mut last = Left::now(up);
    wait::until("nothing changes any more", SETTLED, async || {
        let now = Left::now(up);
        let differences = now.differences(&last);
        last = now;
        if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
    })
    .await;
    last
}

/// What differs in the end: what is removed in the background has its time.
async fn compare(up: &Up, before: &Left) -> Vec<String> {
    let deadline = Instant::now() + SETTLED;
    wait::until("it is decided what is left", SETTLED * 2, async || {
        let differences = Left::now(up).differences(before);
        if differences.is_empty() || Instant::now() > deadline { Ok(differences) } else { Err("not yet") }
    })
    .await
}

/// Of the processes of ours, in kilobytes.
fn memory(up: &Up) -> Vec<(&'static str, u32)> {
    let kilobytes =
        |pid: Option<u32>| pid.map_or(0, |pid| u32::try_from(rss(pid) / 1000).unwrap_or(u32::MAX));
    vec![
        ("server", kilobytes(Some(up.server()))),
        ("relay", kilobytes(up.helper(RELAY))),
        ("launcher", kilobytes(up.helper(LAUNCHER))),
    ]
}
