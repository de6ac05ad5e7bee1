//! Putting a sandbox's root together, in a mount namespace of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::child::Prepared;
use super::failure::{At, Problem};
use super::mounts::{self, Layers, NO_MAPPING};
use super::spec::{ShownGroup, UserMap, WritableLayer};
use super::step::{Layer, Overlay};
use super::users::{self, Extent, ROOT};
use super::{paths, sys};
use crate::confine::mask;
use crate::rootfs::Stage;

/// What was assembled.
pub(super) struct Made<'a> {
    pub(super) proc: BorrowedFd<'a>,
    pub(super) users: BorrowedFd<'a>,
    pub(super) of_root: BorrowedFd<'a>,
    pub(super) own: BorrowedFd<'a>,
    pub(super) root: BorrowedFd<'a>,
}

/// What there is so far. Descriptors close when a program is executed.
pub(super) struct Assembly<'a> {
    prepared: &'a Prepared,
    map: UserMap,
    proc: Option<OwnedFd>,
    users: Option<OwnedFd>,
    /// The user namespace in which the machine's system is shown.
    system: Option<OwnedFd>,
    /// The user namespace for directories of root's.
    of_root: Option<OwnedFd>,
    writable: Option<OwnedFd>,
    /// A small file system in memory: what is made anew for every sandbox.
    small: Option<OwnedFd>,
    /// The layer in it that is filled last.
    own: Option<OwnedFd>,
    root: Option<OwnedFd>,
}

/// Terminals and shared memory are the sandbox's own; the devices hold nothing.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

impl<'a> Assembly<'a> {
    pub(super) fn new(prepared: &'a Prepared) -> Self {
        Self {
            prepared,
            map: UserMap::Single,
            proc: None,
            users: None,
            system: None,
            of_root: None,
            writable: None,
            small: None,
            own: None,
            root: None,
        }
    }

    pub(super) fn make_proc(&mut self) -> Result<(), Problem> {
        self.proc = Some(mounts::make("proc", &[], mounts::INERT)?);
        Ok(())
    }

    pub(super) fn make_users(&mut self, map: UserMap) -> Result<(), Problem> {
        self.map = map;
        let lines = users::sandbox_map(map);
        self.users = Some(self.user_namespace(&lines, &lines)?);
        if let UserMap::Range { first } = map {
            let lines = users::owner_map(first, ROOT);
            self.of_root = Some(self.user_namespace(&lines, &lines)?);
        }
        Ok(())
    }

    fn user_namespace(&self, users: &[Extent], groups: &[Extent]) -> Result<OwnedFd, Problem> {
        users::make(have(self.proc.as_ref())?.as_fd(), self.map, users, groups)
    }

    /// The users as whom the owners of the machine's files are shown.
    fn system_users(&mut self) -> Result<&OwnedFd, Problem> {
        if self.system.is_none() {
            let map = match self.map {
                UserMap::Range { first } => users::system_map(first),
                UserMap::Single => users::sandbox_map(self.map),
            };
            self.system = Some(self.user_namespace(&map, &map)?);
        }
        have(self.system.as_ref())
    }

    pub(super) fn map(&self) -> UserMap {
        self.map
    }

    fn users(&self) -> Result<&OwnedFd, Problem> {
        have(self.users.as_ref())
    }

    /// All that the rest of the steps needs.
    pub(super) fn made(&self) -> Result<Made<'_>, Problem> {
        let users = self.users()?.as_fd();
        Ok(Made {
            proc: have(self.proc.as_ref())?.as_fd(),
            users,
            of_root: self.of_root.as_ref().map_or(users, OwnedFd::as_fd),
            own: have(self.own.as_ref())?.as_fd(),
            root: have(self.root.as_ref())?.as_fd(),
        })
    }

    pub(super) fn open_writable(&mut self, layer: &WritableLayer) -> Result<(), Problem> {
        self.writable = Some(match layer {
            WritableLayer::Disk(path) => paths::open(path)?,
            WritableLayer::Tmpfs { bytes } => {
                let (size, mode) = (bytes.to_string(), "0700");
                let settings = [("size", Some(size.as_str())), ("mode", Some(mode))];
                let mount = mounts::make("tmpfs", &settings, mounts::NO_SETUID_NO_DEVICES)?;
                self.attach_aside(&mount)?;
                mount
            }
        });
        Ok(())
    }

    /// The kernel takes layers of attached mounts only. They are piled up away from the root: what lies on the root is
    /// what `/..` shows.
    fn attach_aside(&self, mount: &OwnedFd) -> Result<(), Problem> {
        let place = self.prepared.stage.aside();
        mounts::attach(mount.as_fd(), paths::open(&place)?.as_fd()).at(place)
    }

    pub(super) fn make_own_layer(&mut self) -> Result<(), Problem> {
        let settings = [("mode", Some("0755")), ("size", Some("2m")), ("nr_inodes", Some("4096"))];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let small = mounts::make("tmpfs", &settings, flags)?;
        self.attach_aside(&small)?;
        self.own = Some(paths::make_owned(small.as_fd(), OWN, self.map.owner())?);
        self.small = Some(small);
        Ok(())
    }

    /// A new directory in memory, mounted at a place of the root.
    fn mount_small(&self, name: &str, flags: u64) -> Result<OwnedFd, Problem> {
        let root = have(self.root.as_ref())?;
        let directory = paths::make_owned(have(self.small.as_ref())?.as_fd(), name, None)?;
        let mount = mounts::copy(directory.as_fd(), false)?;
        sys::set_mount(mount.as_fd(), flags, None)?;
        let place = paths::open_below(root.as_fd(), Path::new(name))?;
        mounts::attach(mount.as_fd(), place.as_fd())?;
        Ok(mount)
    }

    pub(super) fn mount_overlay(&mut self, overlay: &Overlay) -> Result<(), Problem> {
        let mut lower = Vec::with_capacity(overlay.layers.len());
        for layer in &overlay.layers {
            lower.push(self.lower(layer, overlay.mapped)?);
        }
        let own =
            paths::make_owned(have(self.writable.as_ref())?.as_fd(), &overlay.name, None).at(&overlay.name)?;
        let upper = paths::make_owned(own.as_fd(), "upper", self.map.owner()).at("upper")?;
        let work = paths::make_owned(own.as_fd(), "work", None).at("work")?;
        let layers = Layers { lower: &lower, upper: &upper, work: &work, user_marks: overlay.user_marks };
        let mount = mounts::overlay(&layers).at(&overlay.target)?;
        match &self.root {
            None => {
                let place = self.prepared.stage.assembly();
                mounts::attach(mount.as_fd(), paths::open(&place)?.as_fd()).at(place)?;
                self.root = Some(mount);
            }
            Some(root) => {
                let place = paths::open_below(root.as_fd(), &overlay.target).at(&overlay.target)?;
                mounts::attach(mount.as_fd(), place.as_fd()).at(&overlay.target)?;
            }
        }
        Ok(())
    }

    fn lower(&mut self, layer: &Layer, mapped: bool) -> Result<OwnedFd, Problem> {
        let path = match layer {
            Layer::Own => return Ok(have(self.own.as_ref())?.try_clone()?),
            Layer::Prepared(name) => self.prepared.stage.layer(name),
            Layer::Machine(path) => path.clone(),
        };
        let opened = paths::open(&path)?;
        if !mapped {
            return Ok(opened);
        }
        let copied = mounts::copy(opened.as_fd(), false).at(&path)?;
        let users = if matches!(layer, Layer::Machine(_)) { self.system_users()? } else { self.users()? };
        sys::set_mount(copied.as_fd(), sys::READ_ONLY, Some(users.as_fd()))
            .at(&path)
            .map_err(|problem| problem.hint(NO_MAPPING))?;
        self.attach_aside(&copied)?;
        Ok(copied)
    }

    pub(super) fn mount_devices(&mut self, shared_memory: u64) -> Result<(), Problem> {
        let devices = self.mount_small("dev", sys::NO_SETUID | sys::NO_EXECUTION).at("/dev")?;
        for (name, major, minor) in DEVICES {
            make_device(&devices, name, major, minor).at(name)?;
        }
        for (name, to) in DEVICE_LINKS {
            rustix::fs::symlinkat(to, &devices, name).at(name)?;
        }
        let places = ["pts", "shm"].map(|name| paths::make_owned(devices.as_fd(), name, None));
        let set = sys::READ_ONLY | sys::NO_SETUID | sys::NO_EXECUTION;
        sys::set_mount(devices.as_fd(), set, None).at("/dev")?;
        let most = super::TERMINALS.to_string();
        let terminals = [("ptmxmode", Some("0666")), ("mode", Some("0620")), ("max", Some(most.as_str()))];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let terminals = mounts::make("devpts", &terminals, flags).at("pts")?;
        let size = shared_memory.to_string();
        let shared = [("mode", Some("1777")), ("size", Some(size.as_str()))];
        let shared = mounts::make("tmpfs", &shared, mounts::INERT).at("shm")?;
        for (mount, place) in [terminals, shared].iter().zip(places) {
            mounts::attach(mount.as_fd(), place?.as_fd()).at("/dev")?;
        }
        Ok(())
    }

    pub(super) fn mount_sys(&self, groups: &[ShownGroup]) -> Result<(), Problem> {
        let prepared = self.prepared.stage.sys();
        let mount = mounts::copy(paths::open(&prepared)?.as_fd(), false).at(&prepared)?;
        let set = sys::READ_ONLY | sys::NO_SETUID | sys::NO_EXECUTION | sys::NO_DEVICES;
        sys::set_mount(mount.as_fd(), set, None).at("/sys")?;
        let place = paths::open_below(have(self.root.as_ref())?.as_fd(), Path::new("/sys")).at("/sys")?;
        mounts::attach(mount.as_fd(), place.as_fd()).at("/sys")?;
        if groups.is_empty() { Ok(()) } else { self.show_groups(groups).at(GROUPS) }
    }

    /// The sandbox's own control groups, in the form of the kernel's version: one tree, or a directory for each. What
    /// belongs to nobody inside, and lies on read-only mounts, cannot be changed there.
    fn show_groups(&self, groups: &[ShownGroup]) -> Result<(), Problem> {
        let place = paths::open_below(have(self.root.as_ref())?.as_fd(), Path::new(GROUPS))?;
        let flags = sys::READ_ONLY | sys::NO_SETUID | sys::NO_EXECUTION | sys::NO_DEVICES;
        let attach = |group: &ShownGroup, place: BorrowedFd<'_>| -> Result<(), Problem> {
            let mount = mounts::copy(paths::open(&group.path)?.as_fd(), false).at(&group.path)?;
            sys::set_mount(mount.as_fd(), flags, None).at(&group.path)?;
            Ok(mounts::attach(mount.as_fd(), place)?)
        };
        if let [group] = groups
            && group.tree.is_empty()
        {
            return attach(group, place.as_fd());
        }
        let trees = paths::make_owned(have(self.small.as_ref())?.as_fd(), TREES, None)?;
        for group in groups {
            paths::make_owned(trees.as_fd(), &group.tree, None)?;
            for link in &group.links {
                rustix::fs::symlinkat(&group.tree, &trees, link)?;
            }
        }
        let mount = mounts::copy(trees.as_fd(), false)?;
        sys::set_mount(mount.as_fd(), flags, None)?;
        mounts::attach(mount.as_fd(), place.as_fd())?;
        groups.iter().try_for_each(|group| {
            let place = paths::open_below(mount.as_fd(), Path::new(&group.tree))?;
            attach(group, place.as_fd())
        })
    }

    pub(super) fn mount_proc(&mut self) -> Result<(), Problem> {
        let root = have(self.root.as_ref())?;
        let proc = have(self.proc.as_ref())?;
        let place = paths::open_below(root.as_fd(), Path::new("/proc")).at("/proc")?;
        mounts::attach(proc.as_fd(), place.as_fd()).at("/proc")?;
        let nothing = paths::open_below(root.as_fd(), &Path::new("/sys").join(Stage::NOTHING))?;
        let file = rustix::fs::openat(root, "dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let below = |path: &std::ffi::CStr| {
            std::path::PathBuf::from(path.to_string_lossy().trim_start_matches("/proc/").to_owned())
        };
        for path in mask::READ_ONLY {
            mounts::protect(proc.as_fd(), &below(path)).at(below(path))?;
        }
        for path in mask::COVERED {
            mounts::cover(proc.as_fd(), &below(path), nothing.as_fd(), file.as_fd()).at(below(path))?;
        }
        Ok(())
    }
}

/// Where programs look for control groups.
const GROUPS: &str = "/sys/fs/cgroup";
/// The directory of the small file system in which trees of version 1 are shown.
const TREES: &str = "trees";
/// The directory of the small file system that is a layer.
const OWN: &str = "own";

/// As an ordinary user no device can be made; then the machine's own, which hold nothing either, is shown.
fn make_device(devices: &OwnedFd, name: &str, major: u32, minor: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o666);
    let device = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(devices, name, FileType::CharacterDevice, mode, device) {
        Ok(()) => {
            rustix::fs::chmodat(devices, name, mode, AtFlags::empty())?;
            let (user, group) = (Uid::ROOT, Gid::ROOT);
            return rustix::fs::chownat(devices, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW);
        }
        Err(Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    drop(rustix::fs::openat(devices, name, flags, mode)?);
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let place = rustix::fs::openat(devices, name, path, Mode::empty())?;
    let source = rustix::fs::open(Path::new("/dev").join(name), path, Mode::empty())?;
    let shown = mounts::copy(source.as_fd(), false)?;
    sys::set_mount(shown.as_fd(), sys::NO_SETUID | sys::NO_EXECUTION, None)?;
    mounts::attach(shown.as_fd(), place.as_fd())
}

/// What an earlier step made.
fn have<T>(made: Option<&T>) -> Result<&T, Problem> {
    made.ok_or_else(|| Problem::from(Errno::BADF).hint("a step that has to come before it is missing"))
}
