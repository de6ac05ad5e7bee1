//! Ending processes by number, and no others that got the number since.

use rustix::process::{Pid, PidfdFlags, Signal};

/// Kills the processes that `members` names. A number may have passed to a stranger between the reading and the
/// killing; so each is first held by a descriptor, and killed when the group still names it after that.
pub(super) fn kill(members: impl Fn() -> Vec<i32>) {
    let hold = |pid: i32| {
        let fd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some((pid, fd))
    };
    // A bounded number of descriptors at a time; whoever calls repeats until nobody is left.
    let held: Vec<_> = members().into_iter().take(AT_ONCE).filter_map(hold).collect();
    let still = members();
    for (pid, fd) in &held {
        if still.contains(pid) {
            // One that has ended meanwhile is as good.
            let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
        }
    }
}

const AT_ONCE: usize = 512;
