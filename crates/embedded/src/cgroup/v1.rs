//! Version 1: the same group in a tree for each controller.
//!
//! ```text
//!   cpu/stockade-M/ID          the agent      cpu/stockade-M/ID/commands       95 % of the quota, less weight
//!   memory/stockade-M/ID       the agent      memory/stockade-M/ID/commands    a little less memory
//!   pids/stockade-M/ID         the agent      pids/stockade-M/ID/commands      some processes fewer
//!   freezer/stockade-M/ID      everything     cpuacct/stockade-M/ID            everything
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stockade_core::resources::Bytes;

use super::file::{self, Pause};
use super::layout::{Controller, Hierarchy};
use super::limits::{Limits, PERIOD_MICROSECONDS, Usage};
use super::{COMMANDS, CgroupError};
use crate::launch::spec::ShownGroup;

/// Weight of commands against the agent, whose threads have 1024 each.
const COMMANDS_SHARES: &str = "512";
/// What a thawed group is told.
pub(super) const THAW: &[u8] = b"THAWED";

/// One sandbox's groups.
#[derive(Debug)]
pub(super) struct Group {
    trees: Vec<Tree>,
}

#[derive(Debug)]
struct Tree {
    /// What the tree is called where it is mounted.
    name: String,
    path: PathBuf,
    controllers: Vec<Controller>,
}

impl Tree {
    fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// The group of commands, in trees whose limits they have of their own.
    fn commands(&self) -> Option<PathBuf> {
        let limits = [Controller::Cpu, Controller::Memory, Controller::Pids];
        limits.iter().any(|c| self.has(*c)).then(|| self.path.join(COMMANDS))
    }

    fn groups(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.path.clone()).chain(self.commands())
    }
}

impl Group {
    pub(super) fn new(hierarchies: &[Hierarchy], parent: &str, id: &str) -> Self {
        let tree = |h: &Hierarchy| Tree {
            name: h.base.file_name().map_or_else(
                || h.controllers.iter().map(|c| c.name()).collect::<Vec<_>>().join(","),
                |name| name.to_string_lossy().into_owned(),
            ),
            path: h.base.join(parent).join(id),
            controllers: h.controllers.clone(),
        };
        Self { trees: hierarchies.iter().map(tree).collect() }
    }

    pub(super) fn make(&self) -> Result<(), CgroupError> {
        for group in self.trees.iter().flat_map(Tree::groups) {
            file::make(&group)?;
        }
        for tree in self.trees.iter().filter(|tree| tree.has(Controller::Cpu)) {
            if let Some(commands) = tree.commands() {
                file::write_if_there(&commands, "cpu.shares", COMMANDS_SHARES)?;
            }
        }
        Ok(())
    }

    /// Whether every group is there (`Some(true)`), or some are.
    pub(super) fn exists(&self) -> Option<bool> {
        let mut there = self.trees.iter().flat_map(Tree::groups).map(|group| group.is_dir()).peekable();
        let first = *there.peek()?;
        let (mut all, mut any) = (first, first);
        for one in there {
            (all, any) = (all && one, any || one);
        }
        any.then_some(all)
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        let of_commands = limits.of_commands();
        for tree in &self.trees {
            let commands = tree.commands();
            if tree.has(Controller::Cpu) {
                // A child's share may at no time exceed its parent's.
                if let Some(commands) = &commands {
                    file::write(commands, "cpu.cfs_quota_us", "-1")?;
                }
                set_quota(&tree.path, limits)?;
                if let Some(commands) = &commands {
                    set_quota(commands, &of_commands)?;
                }
            }
            for (group, limits) in [(Some(&tree.path), limits), (commands.as_ref(), &of_commands)] {
                let Some(group) = group else { continue };
                if tree.has(Controller::Memory) {
                    set_memory(group, limits.memory)?;
                }
                if tree.has(Controller::Pids) {
                    let most = limits.processes.map_or_else(|| "max".to_owned(), |count| count.to_string());
                    file::write(group, "pids.max", &most)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn join_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.trees.iter().map(|tree| file::writer(&tree.path, "tasks")).collect()
    }

    pub(super) fn command_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.trees.iter().filter_map(Tree::commands).map(|group| file::writer(&group, "tasks")).collect()
    }

    pub(super) fn shown(&self) -> Vec<ShownGroup> {
        let shown = |tree: &Tree| {
            let names = tree.controllers.iter().map(|controller| controller.name().to_owned());
            let links = names.filter(|name| *name != tree.name).collect();
            ShownGroup { path: tree.path.clone(), tree: tree.name.clone(), links }
        };
        self.trees.iter().map(shown).collect()
    }

    fn freezer(&self) -> Option<&Path> {
        self.trees.iter().find(|tree| tree.has(Controller::Freezer)).map(|tree| tree.path.as_path())
    }

    /// Stops every process; `false` when they have not all stopped by the deadline, or cannot be.
    pub(super) fn freeze(&self, deadline: Instant) -> Result<bool, CgroupError> {
        let Some(group) = self.freezer() else { return Ok(false) };
        let mut pause = Pause::until(deadline);
        loop {
            // A process that was being born is stopped by writing again.
            file::write(group, "freezer.state", "FROZEN")?;
            if file::read(group, "freezer.state")?.trim() == "FROZEN" {
                return Ok(true);
            }
            if !pause.next() {
                return Ok(false);
            }
        }
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        self.freezer().map_or(Ok(()), |group| file::write(group, "freezer.state", "THAWED"))
    }

    pub(super) fn is_frozen(&self) -> Result<bool, CgroupError> {
        let Some(group) = self.freezer() else { return Ok(false) };
        Ok(file::read(group, "freezer.state")?.trim() != "THAWED")
    }

    pub(super) fn thaw_handle(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.freezer().map(|group| file::writer(group, "freezer.state")).transpose()
    }

    /// Every process of the sandbox, once.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut found: Vec<i32> =
            self.trees.iter().flat_map(Tree::groups).flat_map(|group| file::processes(&group)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(super) fn oom_kills(&self) -> u64 {
        // Version 1 counts each group's own only.
        let memory = self.trees.iter().filter(|tree| tree.has(Controller::Memory)).flat_map(Tree::groups);
        memory.filter_map(|group| file::keyed(&group, "memory.oom_control", "oom_kill")).sum()
    }

    pub(super) fn usage(&self) -> Usage {
        let tree = |c: Controller| self.trees.iter().find(|t| t.has(c)).map(|t| t.path.as_path());
        Usage {
            cpu: tree(Controller::Cpuacct)
                .and_then(|group| file::number(group, "cpuacct.usage"))
                .map(Duration::from_nanos),
            memory: tree(Controller::Memory).and_then(|group| {
                let used = file::number(group, "memory.usage_in_bytes")?;
                let idle = file::keyed(group, "memory.stat", "total_inactive_file").unwrap_or(0);
                Some(Bytes(used.saturating_sub(idle)))
            }),
            processes: tree(Controller::Pids).and_then(|group| file::number(group, "pids.current")),
        }
    }

    pub(super) fn remove(&self, deadline: Instant) -> Result<(), CgroupError> {
        for tree in &self.trees {
            if let Some(commands) = tree.commands() {
                file::remove(&commands, deadline)?;
            }
            file::remove(&tree.path, deadline)?;
        }
        Ok(())
    }
}

fn set_quota(group: &Path, limits: &Limits) -> Result<(), CgroupError> {
    file::write(group, "cpu.cfs_period_us", &PERIOD_MICROSECONDS.to_string())?;
    let quota = limits.quota().map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
    file::write(group, "cpu.cfs_quota_us", &quota)
}

/// Memory and swap together are limited to what memory alone is. The one may never be below the other, so
/// which goes first depends on whether the limit rises or falls.
fn set_memory(group: &Path, limit: Option<Bytes>) -> Result<(), CgroupError> {
    set_tcp_memory(group, limit)?;
    let value = limit.map_or_else(|| "-1".to_owned(), |Bytes(bytes)| bytes.to_string());
    match file::write(group, "memory.limit_in_bytes", &value) {
        Err(error) if error.is_invalid() => {
            file::write_if_there(group, "memory.memsw.limit_in_bytes", &value)?;
            file::write(group, "memory.limit_in_bytes", &value)
        }
        Err(error) => Err(error),
        Ok(()) => file::write_if_there(group, "memory.memsw.limit_in_bytes", &value),
    }
}

/// Buffers of TCP sockets are not part of the memory in version 1, but can be limited beside it. Those of UDP cannot.
fn set_tcp_memory(group: &Path, limit: Option<Bytes>) -> Result<(), CgroupError> {
    let value = limit.map_or_else(|| "-1".to_owned(), |Bytes(bytes)| tcp_memory(bytes).to_string());
    match file::write_if_there(group, "memory.kmem.tcp.limit_in_bytes", &value) {
        // More is in use: what follows goes on without it, and new buffers are refused at the old limit.
        Err(error) if error.is_invalid() => Ok(()),
        other => other,
    }
}

/// An eighth of the memory, and at least enough for a few connections at full speed.
pub(super) fn tcp_memory(memory: u64) -> u64 {
    const LEAST: u64 = 16 << 20;
    (memory / 8).max(LEAST)
}
