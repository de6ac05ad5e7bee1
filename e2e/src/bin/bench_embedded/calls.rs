//! One call after the other.

use std::time::{Duration, Instant};

use stockade_e2e::wait;

use crate::bar::{bar, repeat};
use crate::process;
use crate::rows::{Row, Rows, Times};
use crate::up::{Caller, Network, Up, first_answer};

/// Calls of one kind.
const CALLS: usize = 200;
const FEW: usize = 10;
const MANY: usize = 500;
/// How long the idle server is watched.
const IDLE: Duration = Duration::from_secs(10);
/// How long after one create and delete the next comes, where they do not come without a pause. In it the server prepares
/// the next sandbox and the kernel takes the last one's network away.
const PAUSE: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(60);

pub(crate) async fn measure(up: &Up, rows: &mut Rows) {
    let caller = up.caller();
    idle(up, rows).await;
    // What the first one finds nothing of: caches, the pool of networks.
    for network in [Network::Isolated, Network::Open] {
        for pause in [PAUSE, Duration::ZERO] {
            creates(&caller, rows, network, pause).await;
        }
    }
    with_one(&caller, rows).await;
    lists(&caller, rows).await;
}

async fn idle(up: &Up, rows: &mut Rows) {
    let before = process::cpu(up.server());
    tokio::time::sleep(IDLE).await;
    let after = process::cpu(up.server());
    if let Some(ours) = process::resident_mb(up.server()) {
        let row =
            Row { what: "memory, server idle".to_owned(), unit: "MB", count: 1, ours, ..Row::default() };
        rows.add(&row.budget(15.0).reference(83.0));
    }
    if let (Some(before), Some(after)) = (before, after) {
        let ours = (after - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        let what = "processor, server idle".to_owned();
        rows.add(&Row { what, unit: "% of a core", count: 1, ours, ..Row::default() });
    }
}

async fn creates(caller: &Caller<'_>, rows: &mut Rows, network: Network, pause: Duration) {
    let name = if network == Network::Open { "open" } else { "isolated" };
    let name = if pause.is_zero() { format!("{name}, without a pause") } else { name.to_owned() };
    let (mut returns, mut answers, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    let bar = bar(&format!("create, {name}"), CALLS);
    caller.create(CALLS, network).await;
    caller.delete(CALLS).await;
    for number in 0..CALLS {
        tokio::time::sleep(pause).await;
        let started = Instant::now();
        let url = caller.create(number, network).await;
        returns.push(started.elapsed());
        first_answer(&url).await;
        answers.push(started.elapsed());
        let started = Instant::now();
        caller.delete(number).await;
        deletes.push(started.elapsed());
        bar.inc(1);
    }
    rows.add(&Row::times(&format!("create, {name}: POST returns"), &returns).reference(46.0));
    rows.add(&Row::times(&format!("create, {name}: first 200"), &answers).budget(5.0).reference(7000.0));
    let slowest = Times::of(&answers).quantile(0.99);
    let what = format!("create, {name}: first 200, p99");
    rows.add(&Row { what, unit: "ms", count: CALLS, ours: slowest, budget: Some(15.0), ..Row::default() });
    rows.add(&Row::times(&format!("delete, {name}"), &deletes).reference(57.0));
    wait_for_count(caller, 0).await;
}

async fn with_one(caller: &Caller<'_>, rows: &mut Rows) {
    let url = caller.create(0, Network::Isolated).await;
    let nothing = repeat("health", CALLS * 5, async |_| caller.nothing().await).await;
    let floor = Times::of(&nothing).quantile(0.5);
    let gets = repeat("get", CALLS * 5, async |_| caller.get(0).await).await;
    rows.add(&Row::times("get", &gets).floor(floor).budget(0.5).reference(5.4));
    let probes = repeat("probe", CALLS, async |_| first_answer(&url).await).await;
    rows.add(&Row::times("GET /v1/sandbox, new connection", &probes));

    let bare = repeat("floor: bash", CALLS, async |_| {
        let done = std::process::Command::new("bash").args(["-c", "true"]).status();
        assert!(done.expect("bash").success());
    })
    .await;
    let floor = Times::of(&bare).quantile(0.5);
    for (what, route) in [("exec true, bash", "/v1/bash/exec"), ("exec true, shell", "/v1/shell/exec")] {
        let times = repeat(what, CALLS, async |_| caller.run(&url, route, "true").await).await;
        rows.add(&Row::times(what, &times).floor(floor).budget(5.0));
    }

    let (mut pauses, mut wakes) = (Vec::new(), Vec::new());
    let bar = bar("pause and wake", CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        caller.pause(0).await;
        pauses.push(started.elapsed());
        let started = Instant::now();
        first_answer(&url).await;
        wakes.push(started.elapsed());
        bar.inc(1);
    }
    rows.add(&Row::times("pause", &pauses));
    rows.add(&Row::times("wake on connection, first 200", &wakes));
    caller.delete(0).await;
    wait_for_count(caller, 0).await;
}

async fn lists(caller: &Caller<'_>, rows: &mut Rows) {
    let bar = bar("sandboxes to list", MANY);
    let mut there = 0;
    for (size, budget) in [(FEW, 0.5), (MANY, 5.0)] {
        for number in there..size {
            caller.create(number, Network::Isolated).await;
            bar.inc(1);
        }
        there = size;
        let times = repeat("list", CALLS, async |_| drop(caller.list().await)).await;
        let row = Row::times(&format!("list of {size}"), &times).budget(budget);
        rows.add(&Row { reference: (size == FEW).then_some(35.0), ..row });
    }
    for number in 0..MANY {
        caller.delete(number).await;
    }
    wait_for_count(caller, 0).await;
}

pub(crate) async fn wait_for_count(caller: &Caller<'_>, size: u64) {
    wait::until(&format!("{size} sandboxes are listed"), SOON, async || match caller.count().await {
        Some(count) if count == size => Ok(()),
        count => Err(format!("{count:?}")),
    })
    .await;
}
