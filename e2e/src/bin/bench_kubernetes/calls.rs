//! Calls one after the other, sixteen callers at once, and what it all costs the server.

use std::time::{Duration, Instant};

use futures::future::join_all;
use stockade_e2e::wait;

use crate::bar::{bar, repeat};
use crate::floor;
use crate::objects::{Objects, remove};
use crate::process;
use crate::rows::{Row, Rows, Times};
use crate::subject::{Caller, Subject};

/// As many callers as the budget speaks of.
const CALLERS: usize = 16;
/// Calls of one kind that are measured one by one.
const CALLS: usize = 200;
/// Both rates are measured by turns, in so many turns, so that both meet the same machine.
const TURNS: usize = 5;
/// What one turn makes. A cluster has 2,768 NodePorts: both sides' have to fit.
const TURN: usize = (MANY - FEW) / TURNS;
/// How long the idle server is watched.
const IDLE: Duration = Duration::from_secs(10);
/// As many sandboxes as the reference's figures, the budget, and the design speak of.
const FEW: usize = 10;
const SOME: usize = 200;
const MANY: usize = 1000;
const VERY_MANY: usize = 10_000;

pub(crate) async fn measure(subject: &Subject, rows: &mut Rows) {
    let caller = subject.caller();
    idle(subject, rows).await;

    caller.create("pattern").await;
    let objects = Objects::of(&subject.view, "pattern").await;
    caller.delete("pattern").await;
    let bare = subject.floor_view().await;
    let floor_times = Times::of(&floor::two_writes(&bare, &objects, CALLS).await);
    let two_writes = floor_times.quantile(0.5);

    let creates = repeat("create", CALLS, async |number| drop(caller.create(&id(number)).await)).await;
    rows.add(
        &Row::times("create, POST returns", &creates)
            .floor(two_writes)
            .budget(two_writes + 5.0)
            .reference(46.0),
    );
    let gets = repeat("get", CALLS * 5, async |number| caller.get(&id(number % CALLS)).await).await;
    rows.add(&Row::times("get", &gets).budget(0.5).reference(5.4));
    list(&caller, rows, SOME, None, Some(770.0)).await;

    let deletes = repeat("delete", SOME - FEW, async |number| caller.delete(&id(FEW + number)).await).await;
    rows.add(&Row::times("delete", &deletes).reference(57.0));
    wait_for_count(&caller, FEW).await;
    list(&caller, rows, FEW, Some(0.5), Some(35.0)).await;

    let (mut floor_rates, mut rates) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let name = format!("pair-{turn}");
        floor_rates.push(floor::pairs_per_second(&bare, &objects, &name, TURN, CALLERS).await);
        // Ids that were not deleted before: with a node, a create would wait for the end of the former Pod.
        let start = SOME + turn * TURN;
        rates.push(at_once(subject, start..start + TURN).await);
    }
    let _ = bare.remove_namespace().await;
    let (floor_rate, ours) = (median(floor_rates), median(rates));
    rows.add(&Row {
        what: format!("creates a second, {CALLERS} callers"),
        unit: "1/s",
        count: MANY - FEW,
        ours,
        floor: Some(floor_rate),
        budget: Some((0.8 * floor_rate).min(100.0)),
        reference: Some(25.0),
        ..Row::default()
    });
    list(&caller, rows, MANY, Some(5.0), None).await;
    memory(subject, rows, "memory, 1,000 sandboxes", None);

    if subject.is_own() {
        let bare_objects = objects.without_addresses();
        let more = VERY_MANY - MANY;
        floor::pairs_per_second(&subject.view, &bare_objects, "bulk", more, 4 * CALLERS).await;
        wait_for_count(&caller, VERY_MANY).await;
        list(&caller, rows, VERY_MANY, Some(50.0), None).await;
        memory(subject, rows, "memory, 10,000 sandboxes", Some(40.0));
    } else {
        let bar = bar("removing", MANY);
        for number in (0..FEW).chain(SOME..SOME + MANY - FEW) {
            remove(&subject.view, &id(number)).await;
            bar.inc(1);
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn id(number: usize) -> String {
    format!("bench-{number:05}")
}

async fn idle(subject: &Subject, rows: &mut Rows) {
    let Some(pid) = subject.pid else { return };
    let before = process::cpu(pid);
    tokio::time::sleep(IDLE).await;
    memory(subject, rows, "memory, idle", Some(15.0));
    if let (Some(before), Some(after)) = (before, process::cpu(pid)) {
        let ours = (after - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        let what = "processor, idle".to_owned();
        rows.add(&Row { what, unit: "% of a core", count: 1, ours, ..Row::default() });
    }
}

fn memory(subject: &Subject, rows: &mut Rows, what: &str, budget: Option<f64>) {
    let Some(ours) = subject.pid.and_then(process::resident_mb) else { return };
    let reference = (what == "memory, idle").then_some(83.0);
    rows.add(&Row { what: what.to_owned(), unit: "MB", count: 1, ours, budget, reference, ..Row::default() });
}

async fn list(
    caller: &Caller<'_>,
    rows: &mut Rows,
    size: usize,
    budget: Option<f64>,
    reference: Option<f64>,
) {
    let count = if size > MANY { 50 } else { CALLS };
    let times = repeat("list", count, async |_| drop(caller.list().await)).await;
    let row = Row::times(&format!("list of {size}"), &times);
    rows.add(&Row { budget, reference, ..row });
}

async fn wait_for_count(caller: &Caller<'_>, size: usize) {
    wait::until(&format!("{size} sandboxes are listed"), Duration::from_secs(60), async || {
        let list: serde_json::Value = serde_json::from_slice(&caller.list().await).expect("JSON");
        match list["count"].as_u64() {
            Some(count) if usize::try_from(count).is_ok_and(|count| count == size) => Ok(()),
            count => Err(format!("{count:?}")),
        }
    })
    .await;
}

/// All callers create; creates a second.
async fn at_once(subject: &Subject, numbers: std::ops::Range<usize>) -> f64 {
    let count = numbers.len();
    let bar = bar("16 callers", count);
    let started = Instant::now();
    join_all((0..CALLERS).map(|worker| {
        let (caller, bar, numbers) = (subject.caller(), bar.clone(), numbers.clone());
        async move {
            for number in numbers.skip(worker).step_by(CALLERS) {
                caller.create(&id(number)).await;
                bar.inc(1);
            }
        }
    }))
    .await;
    floor::rate(count, started.elapsed())
}
