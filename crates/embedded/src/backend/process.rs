//! Whether a process that was written down is still that process.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::plan::Main;
use crate::state::record::ProcessId;

/// Which start of the machine this is.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process, when it is still there: its number may have been given to another since.
pub(crate) fn find(process: Option<&ProcessId>, boot_id: &str) -> (Main, Option<OwnedFd>) {
    let Some(process) = process else { return (Main::Ended, None) };
    if process.boot_id != boot_id {
        return (Main::OfAnEarlierBoot, None);
    }
    let Some(pid) = Pid::from_raw(process.pid) else { return (Main::Ended, None) };
    // The descriptor first: what is read afterwards is of the process it stands for, or of one that came later
    // and has another start.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) if start_time(process.pid) == Some(process.start_time) => (Main::Runs, Some(pidfd)),
        _ => (Main::Ended, None),
    }
}

/// Field 22 of `/proc/PID/stat`; `None` when there is no such process or it has ended and waits to be reaped.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name stands in brackets and may hold anything, brackets too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn mk_process(pid: u32, start_time: u64) -> ProcessId {
        ProcessId { pid: i32::try_from(pid).unwrap(), start_time, boot_id: boot_id().unwrap() }
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_mislead() {
        let stat = "7 (a) S 1 ) R 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert_eq!(parse_start_time("7 (a) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn only_the_process_itself_is_found() {
        let boot = boot_id().unwrap();
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let start = start_time(i32::try_from(child.id()).unwrap()).unwrap();
        let found = |process: &ProcessId| find(Some(process), &boot).0;
        assert_eq!(found(&mk_process(child.id(), start)), Main::Runs);
        assert_eq!(found(&mk_process(child.id(), start + 1)), Main::Ended);
        let earlier = ProcessId { boot_id: "earlier".into(), ..mk_process(child.id(), start) };
        assert_eq!(found(&earlier), Main::OfAnEarlierBoot);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found(&mk_process(child.id(), start)), Main::Ended);
        assert_eq!(find(None, &boot).0, Main::Ended);
    }
}
