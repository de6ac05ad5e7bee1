//! Version 2: one tree.
//!
//! A group that hands controllers down may hold no process itself, so the agent has a group too:
//! `stockade-M/ID/agent` beside `stockade-M/ID/commands`, with the limits on `stockade-M/ID`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stockade_core::resources::Bytes;

use super::file::{self, Pause};
use super::layout::Controller;
use super::limits::{Limits, PERIOD_MICROSECONDS, Usage};
use super::{COMMANDS, CgroupError};
use crate::launch::spec::ShownGroup;

const AGENT: &str = "agent";
/// Weight of commands against the agent, which has the kernel's default of 100.
const COMMANDS_WEIGHT: &str = "50";
/// What a thawed group is told.
pub(super) const THAW: &[u8] = b"0";

/// One sandbox's groups.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    controllers: Vec<Controller>,
}

/// Lets groups below `group` use the controllers.
pub(super) fn hand_down(group: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let on: Vec<String> = controllers.iter().map(|controller| format!("+{controller}")).collect();
    file::write(group, "cgroup.subtree_control", &on.join(" "))
}

impl Group {
    pub(super) fn new(base: &Path, controllers: &[Controller], parent: &str, id: &str) -> Self {
        Self { path: base.join(parent).join(id), controllers: controllers.to_vec() }
    }

    fn agent(&self) -> PathBuf {
        self.path.join(AGENT)
    }

    fn commands(&self) -> PathBuf {
        self.path.join(COMMANDS)
    }

    fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn make(&self) -> Result<(), CgroupError> {
        file::make(&self.path)?;
        hand_down(&self.path, &self.controllers)?;
        file::make(&self.agent())?;
        file::make(&self.commands())?;
        if self.has(Controller::Cpu) {
            file::write(&self.commands(), "cpu.weight", COMMANDS_WEIGHT)?;
        }
        Ok(())
    }

    /// Whether every group is there (`Some(true)`), or some are.
    pub(super) fn exists(&self) -> Option<bool> {
        self.path.is_dir().then(|| self.agent().is_dir() && self.commands().is_dir())
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        for (group, limits) in [(self.path.clone(), *limits), (self.commands(), limits.of_commands())] {
            if self.has(Controller::Cpu) {
                let quota = limits.quota().map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                file::write(&group, "cpu.max", &format!("{quota} {PERIOD_MICROSECONDS}"))?;
            }
            if self.has(Controller::Memory) {
                let most = limits.memory.map_or_else(|| "max".to_owned(), |Bytes(bytes)| bytes.to_string());
                file::write(&group, "memory.max", &most)?;
                let swap = if limits.memory.is_some() { "0" } else { "max" };
                file::write_if_there(&group, "memory.swap.max", swap)?;
            }
            if self.has(Controller::Pids) {
                let most = limits.processes.map_or_else(|| "max".to_owned(), |count| count.to_string());
                file::write(&group, "pids.max", &most)?;
            }
        }
        Ok(())
    }

    pub(super) fn join_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        Ok(vec![file::writer(&self.agent(), "cgroup.procs")?])
    }

    pub(super) fn command_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        Ok(vec![file::writer(&self.commands(), "cgroup.procs")?])
    }

    pub(super) fn shown(&self) -> ShownGroup {
        ShownGroup { path: self.path.clone(), tree: String::new(), links: Vec::new() }
    }

    /// Stops every process; `false` when they have not all stopped by the deadline.
    pub(super) fn freeze(&self, deadline: Instant) -> Result<bool, CgroupError> {
        file::write(&self.path, "cgroup.freeze", "1")?;
        self.wait(deadline, "frozen", 1)
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        file::write(&self.path, "cgroup.freeze", "0")
    }

    pub(super) fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(file::read(&self.path, "cgroup.freeze")?.trim() == "1")
    }

    pub(super) fn thaw_handle(&self) -> Result<OwnedFd, CgroupError> {
        file::writer(&self.path, "cgroup.freeze")
    }

    /// Kills all at once, whatever they do meanwhile. Kernels before 5.14 have no such file.
    pub(super) fn kill_at_once(&self) -> Result<(), CgroupError> {
        file::write(&self.path, "cgroup.kill", "1")
    }

    /// Waits until the kernel says `key value` of the group.
    fn wait(&self, deadline: Instant, key: &str, value: u64) -> Result<bool, CgroupError> {
        let events = file::events(&self.path)?;
        let mut pause = Pause::until(deadline);
        loop {
            if file::keyed(&self.path, "cgroup.events", key) == Some(value) {
                return Ok(true);
            }
            if !pause.next_change(&events) {
                return Ok(false);
            }
        }
    }

    /// Every process of the sandbox.
    pub(super) fn processes(&self) -> Vec<i32> {
        [self.agent(), self.commands()].iter().flat_map(|group| file::processes(group)).collect()
    }

    pub(super) fn oom_kills(&self) -> u64 {
        file::keyed(&self.path, "memory.events", "oom_kill").unwrap_or(0)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            cpu: file::keyed(&self.path, "cpu.stat", "usage_usec").map(Duration::from_micros),
            memory: file::number(&self.path, "memory.current").map(|used| {
                let idle = file::keyed(&self.path, "memory.stat", "inactive_file").unwrap_or(0);
                Bytes(used.saturating_sub(idle))
            }),
            processes: file::number(&self.path, "pids.current"),
        }
    }

    pub(super) fn remove(&self, deadline: Instant) -> Result<(), CgroupError> {
        for group in [self.commands(), self.agent(), self.path.clone()] {
            file::remove(&group, deadline)?;
        }
        Ok(())
    }
}
