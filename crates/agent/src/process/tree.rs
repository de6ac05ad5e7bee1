//! Which processes belong together, read from /proc.

use rustix::process::{Pid, Signal};

/// The fields of `/proc/PID/stat` that say where a process belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
}

/// Every process there is. Processes that end meanwhile are left out.
pub(crate) fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// The name in the second field may contain spaces and parentheses: the last `)` ends it.
fn parse_stat(pid: i32, stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    Some(Stat { pid, parent, group, session })
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
    let all = all();
    let mut found = vec![i32::try_from(std::process::id()).unwrap_or(i32::MAX)];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
        at += 1;
    }
    found.remove(0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        let stat = parse_stat(7, "7 (a) b (c)) S 1 5 4 34816 7 4194304").unwrap();
        assert_eq!(stat, Stat { pid: 7, parent: 1, group: 5, session: 4 });
        assert_eq!(parse_stat(7, "7 (a) S 1"), None);
    }
}
