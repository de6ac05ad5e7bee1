//! Which processes belong together, read from /proc.

use std::collections::HashMap;

use rustix::process::{Pid, Signal};

/// The fields of `/proc/PID/stat` that say what a process is and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    threads: i64,
    /// When it was started, in ticks of the kernel's clock.
    pub(crate) started: u64,
}

impl Stat {
    /// What no other process has, whatever its number.
    pub(crate) fn identity(&self) -> (i32, u64) {
        (self.pid, self.started)
    }

    #[cfg(test)]
    pub(crate) fn for_test(pid: i32, parent: i32, group: i32, session: i32) -> Self {
        Self { pid, state: b'S', parent, group, session, threads: 1, started: 1 }
    }

    /// It has ended and waits for its parent to hear of it. One whose first thread has ended looks so too.
    fn is_over(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Every process there is. Processes that end meanwhile are left out.
pub(crate) fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(stat)
        .collect()
}

/// The process of that number.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may contain spaces and parentheses: the last `)` ends it.
fn parse_stat(pid: i32, stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    // From the third field on, as proc(5) counts them.
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let id = |field| i32::try_from(number(field)?).ok();
    Some(Stat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        parent: id(4)?,
        group: id(5)?,
        session: id(6)?,
        threads: number(20)?,
        started: u64::try_from(number(22)?).ok()?,
    })
}

/// The children of a process of one thread. `None`: the kernel does not say.
pub(crate) fn children(pid: i32) -> Option<Vec<i32>> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Those of `all` that `root` started, directly or not, and that have not ended.
pub(crate) fn below(all: Vec<Stat>, root: i32) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while at < found.len() {
        let more = children.remove(&found[at].pid);
        found.extend(more.into_iter().flatten());
        at += 1;
    }
    found.retain(|stat| !stat.is_over());
    found
}

/// Now, as the kernel tells when a process started: in clock ticks since the machine did.
#[allow(unsafe_code)]
pub(crate) fn ticks() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a value that outlives the call. It fails only for clocks that are not there, and this one is.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let a_second = rustix::param::clock_ticks_per_second();
    seconds.saturating_mul(a_second).saturating_add(nanoseconds.saturating_mul(a_second) / 1_000_000_000)
}

/// Whether the process sleeps until something happens.
pub(crate) fn is_asleep(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

/// Sends `signal` to every process of the session `leader` started.
pub(crate) fn signal_session(leader: Pid, signal: Signal) -> usize {
    signal_where(signal, |stat| stat.session == leader.as_raw_nonzero().get())
}

/// Sends `signal` to the processes that `wanted` picks and returns how many there were.
pub(crate) fn signal_where(signal: Signal, wanted: impl Fn(&Stat) -> bool) -> usize {
    let own = std::process::id();
    let chosen = all().into_iter().filter(|stat| u32::try_from(stat.pid) != Ok(own) && wanted(stat));
    chosen
        .filter_map(|stat| Pid::from_raw(stat.pid))
        .filter(|pid| rustix::process::kill_process(*pid, signal).is_ok())
        .count()
}

/// Whether the process asked not to be told of a hang-up, as `nohup` does.
pub(crate) fn ignores_hangup(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// All processes started by this one, directly or not.
pub(crate) fn descendants() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    below(all(), own).into_iter().map(|stat| stat.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        let text = "7 (a) b (c)) S 1 5 4 34816 7 4194304 1 2 3 4 5 6 7 8 20 0 3 0 99 1000";
        let stat = parse_stat(7, text).unwrap();
        let expect = Stat { pid: 7, state: b'S', parent: 1, group: 5, session: 4, threads: 3, started: 99 };
        assert_eq!(stat, expect);
        assert_eq!(parse_stat(7, "7 (a) S 1"), None);
    }

    fn process(pid: i32, parent: i32, state: u8, threads: i64) -> Stat {
        Stat { pid, state, parent, group: pid, session: pid, threads, started: 1 }
    }

    #[test]
    fn what_is_below_is_found_at_any_depth_and_the_dead_are_left_out() {
        let all = vec![
            process(30, 20, b'S', 1),
            process(10, 1, b'S', 1),
            process(20, 10, b'S', 1),
            process(21, 10, b'Z', 1),
            process(22, 10, b'Z', 2),
            process(40, 1, b'S', 1),
        ];
        let mut pids: Vec<i32> = below(all, 10).iter().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [20, 22, 30], "the first thread of 22 has ended, another has not");
    }
}
