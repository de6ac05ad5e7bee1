//! Control groups: what a sandbox may use, stopping it, ending all of it.
//!
//! Each sandbox has the group `stockade-MACHINE/NAME`, in which its agent runs, and `commands` below it, with a
//! little less of everything, so that a bomb among the commands spares the agent. The name is the sandbox's
//! incarnation: there are groups before there is an id. Processes put themselves there, by writing `0` to a
//! descriptor they were handed: moving another process waits for a grace period of the kernel.
//!
//! Everything here blocks, for a system call or up to a time given; none of it waits for a sandbox's consent.

mod error;
mod file;
mod kill;
mod layout;
mod limits;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::launch::spec::ShownGroup;
pub use error::CgroupError;
pub use layout::{CgroupLayout, Controller, Hierarchy};
pub use limits::{Limits, Usage};

const COMMANDS: &str = "commands";
/// Where the relay is.
const SERVER: &str = "_server";
/// Where the processes of a group go, ours and others', that are in the way of its handing controllers down.
const ASIDE: &str = "stockade.aside";
/// Time for all processes of a sandbox to stop. One that is in the middle of a file system call cannot stop.
const FREEZE_DEADLINE: Duration = Duration::from_secs(2);
/// Time for processes to stop before they are killed: a help against those that multiply, not needed.
const FREEZE_BEFORE_KILL: Duration = Duration::from_millis(50);
/// Time for killed processes to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The groups of all sandboxes of one machine's server.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: CgroupLayout,
    parent: String,
}

/// The groups of one sandbox. Dropping this removes nothing.
#[derive(Debug)]
pub struct SandboxCgroup {
    id: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    None(String),
    V1(v1::Group),
    V2(v2::Group),
}

impl Cgroups {
    /// Makes the group that holds all sandboxes. With [`CgroupLayout::None`] everything here does nothing.
    ///
    /// # Errors
    /// The name is no name, or the group cannot be made.
    pub fn open(layout: &CgroupLayout, machine_name: &str) -> Result<Self, CgroupError> {
        let parent = format!("stockade-{}", checked(machine_name)?);
        match layout {
            CgroupLayout::None { .. } => {}
            CgroupLayout::V1 { hierarchies } => {
                for tree in hierarchies {
                    file::make(&tree.base.join(&parent))?;
                    if tree.controllers.contains(&Controller::Memory) {
                        // The default since 5.11, and fixed there; before, groups inside would count apart.
                        let _ = file::write(&tree.base.join(&parent), "memory.use_hierarchy", "1");
                    }
                }
            }
            CgroupLayout::V2 { base, controllers } => {
                let group = base.join(&parent);
                file::make(&group)?;
                match v2::hand_down(base, controllers) {
                    Err(error) if error.is_invalid() => {
                        step_aside(base)?;
                        v2::hand_down(base, controllers)?;
                    }
                    other => other?,
                }
                v2::hand_down(&group, controllers)?;
            }
        }
        Ok(Self { layout: layout.clone(), parent })
    }

    /// Makes the groups of a sandbox, or takes over empty ones that an earlier attempt left.
    ///
    /// # Errors
    /// They have processes, or cannot be made or limited; what was made is removed again.
    pub fn create(&self, id: &str, limits: &Limits) -> Result<SandboxCgroup, CgroupError> {
        let group = self.group(id)?;
        let processes = group.processes().len();
        if processes > 0 {
            return Err(CgroupError::Occupied { id: id.to_owned(), processes });
        }
        let made = match &group.kind {
            Kind::None(_) => Ok(()),
            Kind::V1(kind) => kind.make(),
            Kind::V2(kind) => kind.make(),
        };
        match made.and_then(|()| group.set_limits(limits)) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first failure is the one to tell of.
                let _ = group.remove(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// The groups of a sandbox that are all there; `None` when some are missing or all.
    ///
    /// # Errors
    /// The id is none.
    pub fn adopt(&self, id: &str) -> Result<Option<SandboxCgroup>, CgroupError> {
        let group = self.group(id)?;
        let whole = match &group.kind {
            Kind::None(_) => Some(true),
            Kind::V1(kind) => kind.exists(),
            Kind::V2(kind) => kind.exists(),
        };
        Ok((whole == Some(true)).then_some(group))
    }

    /// Ends and removes what is there of a sandbox, whole or in part.
    ///
    /// # Errors
    /// Processes or groups were left at the deadline.
    pub fn discard(&self, id: &str, within: Duration) -> Result<(), CgroupError> {
        let group = self.group(id)?;
        group.kill()?;
        group.remove(within)
    }

    /// The ids of all sandboxes that have a group, whole or in part.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.parents().iter().flat_map(|parent| file::children(parent)).collect();
        found.retain(|name| name != SERVER && checked(name).is_ok());
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Descriptors by which the relay leaves the server's group for one of its own: it writes `0` to each. A manager
    /// that ends the server's group then spares it.
    ///
    /// # Errors
    /// The group cannot be made.
    pub fn relay_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let CgroupLayout::V2 { .. } = &self.layout else { return Ok(Vec::new()) };
        let parents = self.parents();
        let groups = parents.iter().map(|parent| parent.join(SERVER));
        groups.map(|group| file::make(&group).and_then(|()| file::writer(&group, "cgroup.procs"))).collect()
    }

    /// Removes the group that holds all sandboxes, if there is none any more.
    ///
    /// # Errors
    /// There are sandboxes, or processes of ours.
    pub fn close(&self) -> Result<(), CgroupError> {
        let now = Instant::now();
        for parent in self.parents() {
            file::remove(&parent.join(SERVER), now)?;
            file::remove(&parent, now)?;
        }
        if let CgroupLayout::V2 { base, .. } = &self.layout {
            step_back(base);
        }
        Ok(())
    }

    fn parents(&self) -> Vec<PathBuf> {
        match &self.layout {
            CgroupLayout::None { .. } => Vec::new(),
            CgroupLayout::V1 { hierarchies } => {
                hierarchies.iter().map(|tree| tree.base.join(&self.parent)).collect()
            }
            CgroupLayout::V2 { base, .. } => vec![base.join(&self.parent)],
        }
    }

    fn group(&self, id: &str) -> Result<SandboxCgroup, CgroupError> {
        let id = checked(id)?;
        let kind = match &self.layout {
            CgroupLayout::None { reason } => Kind::None(reason.clone()),
            CgroupLayout::V1 { hierarchies } => Kind::V1(v1::Group::new(hierarchies, &self.parent, id)),
            CgroupLayout::V2 { base, controllers } => {
                Kind::V2(v2::Group::new(base, controllers, &self.parent, id))
            }
        };
        Ok(SandboxCgroup { id: id.to_owned(), kind })
    }
}

impl SandboxCgroup {
    /// Descriptors the sandbox's first process writes `0` to, to be in all of its groups.
    ///
    /// # Errors
    /// A group is gone.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(Vec::new()),
            Kind::V1(group) => group.join_fds(),
            Kind::V2(group) => group.join_fds(),
        }
    }

    /// Descriptors each command writes `0` to before it is executed.
    ///
    /// # Errors
    /// A group is gone.
    pub fn command_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(Vec::new()),
            Kind::V1(group) => group.command_fds(),
            Kind::V2(group) => group.command_fds(),
        }
    }

    /// The groups, as the sandbox may see them.
    #[must_use]
    pub fn shown(&self) -> Vec<ShownGroup> {
        match &self.kind {
            Kind::None(_) => Vec::new(),
            Kind::V1(group) => group.shown(),
            Kind::V2(group) => vec![group.shown()],
        }
    }

    /// Changes the limits of a sandbox that may be running.
    ///
    /// # Errors
    /// The kernel refuses: more memory is used than the new limit, and cannot be reclaimed.
    pub fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(()),
            Kind::V1(group) => group.set_limits(limits),
            Kind::V2(group) => group.set_limits(limits),
        }
    }

    /// Stops every process. On failure none is left stopped.
    ///
    /// # Errors
    /// Not all stopped within two seconds, or nothing can be stopped here.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        if !self.can_freeze() {
            let reason = match &self.kind {
                Kind::None(reason) => reason.clone(),
                _ => "the freezer controller is not mounted or not writable".to_owned(),
            };
            return Err(CgroupError::Unavailable { what: "paused", reason });
        }
        match self.try_freeze(Instant::now() + FREEZE_DEADLINE) {
            Ok(true) => Ok(()),
            failed => {
                self.thaw()?;
                failed?;
                Err(CgroupError::Late { id: self.id.clone(), what: "stop", waited: FREEZE_DEADLINE })
            }
        }
    }

    /// Lets every process run again.
    ///
    /// # Errors
    /// The group is gone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(()),
            Kind::V1(group) => group.thaw(),
            Kind::V2(group) => group.thaw(),
        }
    }

    /// Whether the processes are stopped, or told to.
    ///
    /// # Errors
    /// The group is gone.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(false),
            Kind::V1(group) => group.is_frozen(),
            Kind::V2(group) => group.is_frozen(),
        }
    }

    /// What wakes a paused sandbox: a descriptor, and what to write to it. `None` where nothing can be paused.
    ///
    /// # Errors
    /// The group is gone.
    pub fn thaw_handle(&self) -> Result<Option<(OwnedFd, &'static [u8])>, CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(None),
            Kind::V1(group) => Ok(group.thaw_handle()?.map(|fd| (fd, v1::THAW))),
            Kind::V2(group) => Ok(Some((group.thaw_handle()?, v2::THAW))),
        }
    }

    /// Kills every process, also stopped ones and those that multiply, and waits until all are gone. Does nothing
    /// where there are no groups: the end of its first process ends a sandbox too.
    ///
    /// # Errors
    /// Some are still there after ten seconds: processes in the middle of a system call that cannot be ended.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + KILL_DEADLINE;
        let mut pause = file::Pause::until(deadline);
        if self.processes().is_empty() {
            return Ok(());
        }
        let at_once = matches!(&self.kind, Kind::V2(group) if group.kill_at_once().is_ok());
        if !at_once {
            // What is stopped cannot multiply.
            let _ = self.try_freeze(Instant::now() + FREEZE_BEFORE_KILL);
        }
        loop {
            kill::kill(|| self.processes());
            // Whoever was stopped when killed ends when it may run.
            match self.thaw() {
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
            if self.processes().is_empty() {
                return Ok(());
            }
            if !pause.next() {
                return Err(CgroupError::Late { id: self.id.clone(), what: "end", waited: KILL_DEADLINE });
            }
        }
    }

    /// The processes of the sandbox, by the numbers they have outside.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        match &self.kind {
            Kind::None(_) => Vec::new(),
            Kind::V1(group) => group.processes(),
            Kind::V2(group) => group.processes(),
        }
    }

    /// How many processes were killed because the sandbox's memory was used up, since it was made.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        match &self.kind {
            Kind::None(_) => 0,
            Kind::V1(group) => group.oom_kills(),
            Kind::V2(group) => group.oom_kills(),
        }
    }

    /// What it uses now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match &self.kind {
            Kind::None(_) => Usage::default(),
            Kind::V1(group) => group.usage(),
            Kind::V2(group) => group.usage(),
        }
    }

    /// Removes the groups, waiting at most `within` for processes that are on their way out.
    ///
    /// # Errors
    /// A group has processes at the end of that time. It can be tried again.
    pub fn remove(&self, within: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + within;
        match &self.kind {
            Kind::None(_) => Ok(()),
            Kind::V1(group) => group.remove(deadline),
            Kind::V2(group) => group.remove(deadline),
        }
    }

    fn can_freeze(&self) -> bool {
        match &self.kind {
            Kind::None(_) => false,
            Kind::V1(group) => matches!(group.thaw_handle(), Ok(Some(_))),
            Kind::V2(_) => true,
        }
    }

    fn try_freeze(&self, deadline: Instant) -> Result<bool, CgroupError> {
        match &self.kind {
            Kind::None(_) => Ok(false),
            Kind::V1(group) => group.freeze(deadline),
            Kind::V2(group) => group.freeze(deadline),
        }
    }
}

/// A name that stays one directory below another, and is none of the kernel's or our own.
fn checked(name: &str) -> Result<&str, CgroupError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let plain = !name.starts_with('.') && !name.is_empty() && name.len() <= 200 && name.chars().all(fits);
    if plain { Ok(name) } else { Err(CgroupError::Name { name: name.chars().take(80).collect() }) }
}

/// Moves the processes of `base` out of the way: a group that hands controllers down may hold none.
fn step_aside(base: &Path) -> Result<(), CgroupError> {
    let aside = base.join(ASIDE);
    file::make(&aside)?;
    for pid in file::processes(base) {
        match file::write(&aside, "cgroup.procs", &pid.to_string()) {
            // It has ended.
            Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Undoes it when no server has groups in `base` any more. What cannot be undone does no harm where it is.
fn step_back(base: &Path) {
    let aside = base.join(ASIDE);
    let ours = |name: &String| name.starts_with("stockade-");
    if !aside.is_dir() || file::children(base).iter().any(ours) {
        return;
    }
    for controller in Controller::ALL {
        let _ = file::write(base, "cgroup.subtree_control", &format!("-{controller}"));
    }
    for pid in file::processes(&aside) {
        let _ = file::write(base, "cgroup.procs", &pid.to_string());
    }
    let _ = file::remove(&aside, Instant::now());
}
