//! How much a sandbox may use, and how much of that its commands may.

use std::time::Duration;

use stockade_core::resources::{Bytes, Millicores};

/// The limits of one sandbox: its agent and its commands together. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<Millicores>,
    /// Memory, swapped out or not, files in memory included.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

/// What a sandbox uses now; `None` where it is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was made.
    pub cpu: Option<Duration>,
    /// Bytes of memory, without files that can be read again.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// The kernel's default, and the longest a process that used up its share has to wait.
pub(super) const PERIOD_MICROSECONDS: u64 = 100_000;
/// The least the kernel takes.
const LEAST_QUOTA_MICROSECONDS: u64 = 1_000;
/// The agent's part of the memory, so that commands meet their own limit before the agent is short.
const AGENT_MEMORY: u64 = 32 * 1024 * 1024;
/// The agent's part of the processes; it has about ten threads.
const AGENT_PROCESSES: u32 = 32;

impl Limits {
    /// What commands may use: less than the whole, so that a bomb among them leaves the agent alive.
    #[must_use]
    pub fn of_commands(&self) -> Self {
        Self {
            cpu: self.cpu.map(|Millicores(cpu)| Millicores(cpu - cpu / 20)),
            memory: self.memory.map(|Bytes(bytes)| Bytes(bytes - AGENT_MEMORY.min(bytes / 8))),
            processes: self.processes.map(|count| count - AGENT_PROCESSES.min(count / 4)),
        }
    }

    /// Microseconds of processor time in each period.
    pub(super) fn quota(&self) -> Option<u64> {
        let quota = |Millicores(cpu)| u64::from(cpu) * (PERIOD_MICROSECONDS / 1000);
        self.cpu.map(|cpu| quota(cpu).max(LEAST_QUOTA_MICROSECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_less_than_the_whole() {
        let limits =
            Limits { cpu: Some(Millicores(1000)), memory: Some(Bytes(512 << 20)), processes: Some(512) };
        assert_eq!(
            limits.of_commands(),
            Limits { cpu: Some(Millicores(950)), memory: Some(Bytes(480 << 20)), processes: Some(480) }
        );
        assert_eq!(limits.quota(), Some(100_000));
    }

    #[test]
    fn small_limits_leave_commands_most_of_it() {
        let limits = Limits { cpu: Some(Millicores(5)), memory: Some(Bytes(8 << 20)), processes: Some(8) };
        let commands = limits.of_commands();
        assert_eq!((commands.memory, commands.processes), (Some(Bytes(7 << 20)), Some(6)));
        assert_eq!(commands.quota(), Some(1000));
        assert_eq!(Limits::default().of_commands(), Limits::default());
    }
}
