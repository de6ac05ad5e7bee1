//! Where this machine keeps control groups, and which of them may be made here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a control group can count or limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Limits processor time.
    Cpu,
    /// Counts processor time; a controller of its own in version 1 only.
    Cpuacct,
    /// Limits memory.
    Memory,
    /// Limits the number of processes.
    Pids,
    /// Stops all processes; a controller of its own in version 1 only.
    Freezer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Pids, Self::Freezer];

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The control groups that can be made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupLayout {
    /// None: limits are those of single processes.
    None {
        /// Why not, as a sentence.
        reason: String,
    },
    /// Version 1: a tree for each controller, or for several together.
    V1 {
        /// The trees, each with at least one controller.
        hierarchies: Vec<Hierarchy>,
    },
    /// Version 2: one tree.
    V2 {
        /// The group below which ours are made.
        base: PathBuf,
        /// The controllers it can hand down, of those we use. Stopping needs none.
        controllers: Vec<Controller>,
    },
}

/// One tree of version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The group below which ours are made.
    pub base: PathBuf,
    /// Its controllers, of those we use.
    pub controllers: Vec<Controller>,
}

impl Default for CgroupLayout {
    fn default() -> Self {
        Self::None { reason: "control groups were not looked for".to_owned() }
    }
}

impl CgroupLayout {
    /// Whether sandboxes can be limited in, or stopped by, what the controller does.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        match self {
            Self::None { .. } => false,
            Self::V1 { hierarchies } => hierarchies.iter().any(|tree| tree.controllers.contains(&controller)),
            Self::V2 { controllers, .. } => match controller {
                Controller::Freezer | Controller::Cpuacct => true,
                other => controllers.contains(&other),
            },
        }
    }

    /// Whether a paused sandbox can be had.
    #[must_use]
    pub fn can_freeze(&self) -> bool {
        self.has(Controller::Freezer)
    }

    /// Looks at the machine. Makes and removes one empty group in each tree to see whether it may.
    #[must_use]
    pub fn find() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let root = rustix::process::geteuid().is_root();
        find_in(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), &Trial { root })
    }
}

/// What finding the layout asks of the file system.
pub(super) struct Trial {
    /// Whether we are root, as far as we see.
    pub(super) root: bool,
}

impl Trial {
    /// Whether groups can be made in `directory`.
    fn can_make(&self, directory: &Path) -> std::io::Result<()> {
        let probe = directory.join(format!("stockade-probe-{}", std::process::id()));
        match std::fs::create_dir(&probe) {
            Ok(()) => std::fs::remove_dir(&probe),
            Err(error) => Err(error),
        }
    }

    /// Whether processes of groups below `directory` can be moved between them.
    fn can_move(&self, directory: &Path) -> bool {
        let procs = directory.join("cgroup.procs");
        rustix::fs::access(&procs, rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// Whether whoever manages the machine (systemd) left this group to us.
    fn is_delegated(&self, directory: &Path) -> bool {
        let mut value = [0_u8; 8];
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            rustix::fs::getxattr(directory, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
        })
    }
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        // Blanks are written as octal numbers; nobody mounts control groups below such a name.
        Some(Mount { point: PathBuf::from(front.split(' ').nth(4)?), kind, options })
    })
}

/// The layout that these two files tell of.
pub(super) fn find_in(mountinfo: &str, own: &str, trial: &Trial) -> CgroupLayout {
    let mut refused = None;
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for mount in mounts(mountinfo).filter(|mount| mount.kind == "cgroup") {
        let named = |c: &Controller| mount.options.split(',').any(|option| option == c.name());
        let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(named).collect();
        // A tree that is mounted twice is used once.
        let known = hierarchies.iter().any(|tree| tree.controllers.iter().any(|c| controllers.contains(c)));
        if controllers.is_empty() || known {
            continue;
        }
        match trial.can_make(&mount.point) {
            Ok(()) => hierarchies.push(Hierarchy { base: mount.point, controllers }),
            Err(error) => refused = Some(format!("{}: {error}", mount.point.display())),
        }
    }
    if !hierarchies.is_empty() {
        return CgroupLayout::V1 { hierarchies };
    }
    let unified = mounts(mountinfo).find(|mount| mount.kind == "cgroup2");
    match (unified, refused) {
        // Beside trees of version 1 the unified one has no controllers to offer.
        (_, Some(refused)) => CgroupLayout::None { reason: format!("no group can be made in {refused}") },
        (Some(mount), None) => find_v2(&mount.point, own, trial),
        (None, None) => CgroupLayout::None { reason: "no control groups are mounted".to_owned() },
    }
}

fn find_v2(mount: &Path, own: &str, trial: &Trial) -> CgroupLayout {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let Some(base) = base_v2(mount, own, trial) else {
        return CgroupLayout::None {
            reason: format!("the group {} is not ours to divide", mount.join(own).display()),
        };
    };
    if let Err(error) = trial.can_make(&base) {
        return CgroupLayout::None { reason: format!("no group can be made in {}: {error}", base.display()) };
    }
    let offered = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let wanted = [Controller::Cpu, Controller::Memory, Controller::Pids];
    let controllers =
        wanted.into_iter().filter(|c| offered.split_whitespace().any(|word| word == c.name())).collect();
    CgroupLayout::V2 { base, controllers }
}

/// The highest group on the way to our own that was left to us. It is the same one after a new login, so that a server
/// that is started again finds its sandboxes.
///
/// Root takes the top of the tree, which it finds from anywhere, before a group left to it in which it runs itself: one
/// that hands controllers down may hold no process, and the manager could not start the server in it again while there
/// are sandboxes (systemd's status 219). A server in a group below (`DelegateSubgroup=`) is out of the way.
fn base_v2(mount: &Path, own: &str, trial: &Trial) -> Option<PathBuf> {
    let mut way = vec![mount.to_owned()];
    for part in own.split('/').filter(|part| !part.is_empty() && *part != "..") {
        way.push(way.last()?.join(part));
    }
    let left_to_us = |group: &&PathBuf| trial.is_delegated(group) && trial.can_move(group);
    let delegated = way.iter().skip(1).find(left_to_us);
    let in_the_way = trial.root && delegated == way.last();
    if let Some(delegated) = delegated.filter(|_| !in_the_way) {
        return Some(delegated.clone());
    }
    if trial.root && trial.can_make(mount).is_ok() {
        return Some(mount.to_owned());
    }
    delegated
        .or_else(|| way.iter().find(|group| trial.can_move(group) && trial.can_make(group).is_ok()))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_v2_tree(controllers: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("user.slice/app.scope")).unwrap();
        for group in ["", "user.slice", "user.slice/app.scope"] {
            std::fs::write(tree.path().join(group).join("cgroup.procs"), "").unwrap();
            std::fs::write(tree.path().join(group).join("cgroup.controllers"), controllers).unwrap();
        }
        tree
    }

    fn mountinfo(tree: &Path) -> String {
        format!("25 20 0:22 / {} rw,relatime shared:4 - cgroup2 cgroup2 rw\n", tree.display())
    }

    #[test]
    fn root_uses_the_top_of_the_unified_tree() {
        let tree = mk_v2_tree("cpuset cpu io memory pids\n");
        let own = "0::/user.slice/app.scope\n";
        let layout = find_in(&mountinfo(tree.path()), own, &Trial { root: true });
        let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids];
        assert_eq!(layout, CgroupLayout::V2 { base: tree.path().to_owned(), controllers });
        assert!(layout.can_freeze());
    }

    #[test]
    fn a_delegated_group_is_used_before_the_top_unless_root_is_in_its_way() {
        let tree = mk_v2_tree("memory\n");
        let scope = tree.path().join("user.slice/app.scope");
        rustix::fs::setxattr(&scope, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let base = |own: &str, root| match find_in(&mountinfo(tree.path()), own, &Trial { root }) {
            CgroupLayout::V2 { base, .. } => base,
            other => panic!("{other:?}"),
        };
        assert_eq!(base("0::/user.slice/app.scope/server\n", true), scope);
        assert_eq!(base("0::/user.slice/app.scope/server\n", false), scope);
        assert_eq!(base("0::/user.slice/app.scope\n", false), scope);
        assert_eq!(base("0::/user.slice/app.scope\n", true), tree.path());
    }

    #[test]
    fn trees_of_version_1_come_before_the_unified_one() {
        let tree = tempfile::tempdir().unwrap();
        let (cpu, memory) = (tree.path().join("cpu"), tree.path().join("memory"));
        std::fs::create_dir_all(&cpu).unwrap();
        std::fs::create_dir_all(&memory).unwrap();
        let text = format!(
            "1 0 0:1 / {c} rw - cgroup cgroup rw,cpu,cpuacct\n2 0 0:2 / {m} rw - cgroup cgroup rw,memory\n\
             3 0 0:3 / {c} rw - cgroup2 cgroup2 rw\n4 0 0:4 / {c} rw - cgroup cgroup rw,name=systemd\n",
            c = cpu.display(),
            m = memory.display()
        );
        let layout = find_in(&text, "", &Trial { root: true });
        let hierarchies = vec![
            Hierarchy { base: cpu, controllers: vec![Controller::Cpu, Controller::Cpuacct] },
            Hierarchy { base: memory, controllers: vec![Controller::Memory] },
        ];
        assert_eq!(layout, CgroupLayout::V1 { hierarchies });
        assert!(!layout.can_freeze());
    }

    #[test]
    fn trees_that_cannot_be_written_are_named() {
        let text = "2 0 0:2 / /proc/no-such rw - cgroup cgroup rw,memory\n";
        let CgroupLayout::None { reason } = find_in(text, "", &Trial { root: false }) else {
            panic!("found control groups");
        };
        assert!(reason.contains("/proc/no-such"), "{reason}");
    }

    #[test]
    fn the_layout_of_this_machine_leaves_no_group_behind() {
        let layout = CgroupLayout::find();
        let probe = format!("stockade-probe-{}", std::process::id());
        if let CgroupLayout::V1 { hierarchies } = &layout {
            assert!(hierarchies.iter().all(|tree| !tree.base.join(&probe).exists()));
        }
    }
}
