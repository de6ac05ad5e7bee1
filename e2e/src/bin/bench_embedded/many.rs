//! Many sandboxes at once, and what they cost in memory.
//!
//! Three figures for one sandbox, because none is the whole truth: its processes' share of memory (PSS) and what the
//! kernel holds for it (slab, stacks, page tables, per-processor data, files in memory), which is the budget's; what
//! its control group was charged; and by how much less memory the machine has available, which counts caches too.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::bar::bar;
use crate::calls::wait_for_count;
use crate::left;
use crate::proc;
use crate::process;
use crate::rates::rate;
use crate::rows::{Row, Rows};
use crate::up::{Network, Up, first_answer};

/// As many as the budget speaks of.
const MANY: usize = 500;
/// What the kernel counts outside of processes, in /proc/meminfo.
const KERNEL: [&str; 5] = ["Slab", "KernelStack", "PageTables", "Percpu", "Shmem"];

pub(crate) async fn measure(up: &Up, rows: &mut Rows) {
    let caller = up.caller();
    // Caches that the first sandbox fills are everybody's.
    first_answer(&caller.create(MANY, Network::Isolated).await).await;
    caller.delete(MANY).await;
    wait_for_count(&caller, 0).await;
    up.wait_gone().await;
    rows.add(&megabytes("memory, server, no sandbox", rss(up.server())));
    rows.add(&megabytes("memory, relay, no sandbox", rss(helper(up, left::RELAY))));
    rows.add(&megabytes("memory, launcher, no sandbox", rss(helper(up, left::LAUNCHER))));
    let (before, available) = (kernel(), proc::machine("MemAvailable"));

    let progress = bar("sandboxes at once", MANY);
    let (started, mut urls) = (Instant::now(), Vec::new());
    for number in 0..MANY {
        urls.push(caller.create(number, Network::Isolated).await);
        progress.inc(1);
    }
    let creates = rate(MANY, started.elapsed());
    let progress = bar("each answers", MANY);
    let started = Instant::now();
    for url in &urls {
        first_answer(url).await;
        progress.inc(1);
    }
    let answers = rate(MANY, started.elapsed());
    for (what, ours) in
        [("creates, one caller, up to 500", creates), ("answers of 500 sandboxes in turn", answers)]
    {
        rows.add(&Row { what: what.to_owned(), unit: "1/s", count: MANY, ours, ..Row::default() });
    }

    let groups = sandbox_groups(up);
    let processes: u64 = groups.iter().flat_map(|group| pids(group)).map(proc::proportional).sum();
    let charged: u64 = groups.iter().filter_map(|group| charged(group)).sum();
    let inside = kernel().saturating_sub(before);
    let less = available.saturating_sub(proc::machine("MemAvailable"));
    let each = |bytes: u64| bytes / MANY as u64;
    rows.add(&megabytes("memory of an idle sandbox", each(processes + inside)).budget(5.0));
    rows.add(&megabytes("  its processes (PSS)", each(processes)));
    rows.add(&megabytes("  the kernel's, for it", each(inside)));
    rows.add(&megabytes("  charged to its control group", each(charged)));
    rows.add(&megabytes("  less available on the machine", each(less)));
    rows.add(&megabytes("memory of 500 sandboxes, available", less).budget(4096.0));
    rows.add(&megabytes("memory, server, 500 sandboxes", rss(up.server())));
    rows.add(&megabytes("memory, relay, 500 sandboxes", rss(helper(up, left::RELAY))));
    rows.add(&megabytes("memory, launcher, 500 sandboxes", rss(helper(up, left::LAUNCHER))));

    let progress = bar("deletes", MANY);
    for number in 0..MANY {
        caller.delete(number).await;
        progress.inc(1);
    }
    wait_for_count(&caller, 0).await;
    up.wait_gone().await;
}

fn kernel() -> u64 {
    KERNEL.iter().map(|name| proc::machine(name)).sum()
}

fn helper(up: &Up, name: &str) -> u32 {
    up.helper(name).unwrap_or_else(|| panic!("there is no {name}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "megabytes of a process")]
pub(crate) fn rss(pid: u32) -> u64 {
    process::resident_mb(pid).map_or(0, |megabytes| (megabytes * 1e6) as u64)
}

#[allow(clippy::cast_precision_loss, reason = "no machine has 2^52 bytes")]
fn megabytes(what: &str, bytes: u64) -> Row {
    Row { what: what.to_owned(), unit: "MB", count: 1, ours: bytes as f64 / 1e6, ..Row::default() }
}

/// The group of each sandbox in the tree that counts memory. What was prepared ahead is none yet.
fn sandbox_groups(up: &Up) -> Vec<PathBuf> {
    let standbys = proc::names(&up.state.join("standby"));
    let is_sandbox = |group: &PathBuf| {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let of_ours = group.parent().and_then(name).is_some_and(|parent| parent.starts_with("stockade-"));
        of_ours && name(group).is_some_and(|name| name != "_server" && !standbys.contains(&name))
    };
    let groups = left::groups(&up.machine());
    let counts = |group: &PathBuf| {
        group.join("memory.usage_in_bytes").exists() || group.join("memory.current").exists()
    };
    groups.into_iter().filter(|group| counts(group) && is_sandbox(group)).collect()
}

fn charged(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok();
    read("memory.usage_in_bytes").or_else(|| read("memory.current"))
}

/// Its processes, and those of the groups below it.
fn pids(group: &Path) -> Vec<u32> {
    let of = |group: &Path| {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
    };
    let below = proc::names(group).into_iter().map(|name| group.join(name)).filter(|path| path.is_dir());
    std::iter::once(group.to_owned()).chain(below).flat_map(|group| of(&group)).collect()
}
