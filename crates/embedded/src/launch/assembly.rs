//! Putting a sandbox's root together, in a mount namespace of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::child::Prepared;
use super::failure::{At, Problem};
use super::mounts::{self, Layers};
use super::spec::{Bind, Missing, UserMap, WritableLayer};
use super::step::{Layer, Overlay, OwnLayer};
use super::users::{self, Extent};
use super::{paths, sys};
use crate::confine::mask;
use crate::rootfs::FOR_EVERYBODY;

/// What there is so far. Descriptors close when a program is executed.
pub(super) struct Assembly<'a> {
    prepared: &'a Prepared,
    map: UserMap,
    proc: Option<OwnedFd>,
    users: Option<OwnedFd>,
    /// The user namespace in which the machine's system is shown.
    system: Option<OwnedFd>,
    /// User namespaces for directories of these owners.
    owners: Vec<((u32, u32), OwnedFd)>,
    writable: Option<OwnedFd>,
    /// A small file system in memory: what is made anew for every sandbox.
    small: Option<OwnedFd>,
    root: Option<OwnedFd>,
    /// What the answer should say.
    pub(super) messages: Vec<String>,
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

const NO_MAPPING: &str = "the file system there cannot show other owners than its files have; put the directory on \
    ext4, xfs, btrfs or tmpfs";

impl<'a> Assembly<'a> {
    pub(super) fn new(prepared: &'a Prepared) -> Self {
        Self {
            prepared,
            map: UserMap::Single,
            proc: None,
            users: None,
            system: None,
            owners: Vec::new(),
            writable: None,
            small: None,
            root: None,
            messages: Vec::new(),
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
        Ok(())
    }

    fn user_namespace(&self, users: &[Extent], groups: &[Extent]) -> Result<OwnedFd, Problem> {
        let creator = match self.map {
            UserMap::Range { first } => Some(first),
            UserMap::Single => None,
        };
        users::make(have(self.proc.as_ref())?.as_fd(), creator, users, groups)
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

    pub(super) fn users(&self) -> Result<&OwnedFd, Problem> {
        have(self.users.as_ref())
    }

    /// The ids outside of the sandbox's own user; `None` where that is us.
    fn owner(&self) -> Option<(u32, u32)> {
        match self.map {
            UserMap::Range { first } => Some((first + UserMap::USER, first + UserMap::USER)),
            UserMap::Single => None,
        }
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

    pub(super) fn make_own_layer(&mut self, layer: &OwnLayer) -> Result<(), Problem> {
        let settings = [("mode", Some("0755")), ("size", Some("2m")), ("nr_inodes", Some("4096"))];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let small = mounts::make("tmpfs", &settings, flags)?;
        self.attach_aside(&small)?;
        let owner = self.owner();
        let own = paths::make_owned(small.as_fd(), OWN, owner)?;
        for directory in &layer.directories {
            paths::make_all_owned(own.as_fd(), directory, owner).at(directory)?;
        }
        for name in FOR_EVERYBODY {
            // This layer's modes win over those of the layers below.
            if let Ok(directory) =
                rustix::fs::openat(&own, *name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            {
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o1777)).at(name)?;
            }
        }
        for (path, content) in &layer.files {
            write_owned(&own, path, content.as_bytes(), owner).at(path)?;
        }
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
        let upper = paths::make_owned(own.as_fd(), "upper", self.owner()).at("upper")?;
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
            Layer::Own => return Ok(paths::open_below(have(self.small.as_ref())?.as_fd(), Path::new(OWN))?),
            Layer::Prepared(name) => self.prepared.stage.path(name),
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

    pub(super) fn mount_devices(&mut self) -> Result<(), Problem> {
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
        let shared = [("mode", Some("1777")), ("size", Some("64m"))];
        let shared = mounts::make("tmpfs", &shared, mounts::INERT).at("shm")?;
        for (mount, place) in [terminals, shared].iter().zip(places) {
            mounts::attach(mount.as_fd(), place?.as_fd()).at("/dev")?;
        }
        Ok(())
    }

    pub(super) fn mount_sys(&mut self) -> Result<(), Problem> {
        let mount =
            self.mount_small("sys", sys::NO_SETUID | sys::NO_EXECUTION | sys::NO_DEVICES).at("/sys")?;
        paths::make_below(mount.as_fd(), Path::new("fs/cgroup"))?;
        paths::make_below(mount.as_fd(), Path::new(NOTHING))?;
        let processors = paths::make_below(mount.as_fd(), Path::new("devices/system/cpu"))?;
        for name in ["online", "possible", "present"] {
            // The kernel may have no such file; then neither has the sandbox.
            let Ok(content) = std::fs::read(Path::new("/sys/devices/system/cpu").join(name)) else {
                continue;
            };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&processors, name, flags, Mode::from_raw_mode(0o444)).at(name)?;
            rustix::io::write(&file, &content).at(name)?;
        }
        Ok(sys::set_mount(mount.as_fd(), sys::READ_ONLY, None)?)
    }

    pub(super) fn mount_proc(&mut self) -> Result<(), Problem> {
        let root = have(self.root.as_ref())?;
        let proc = have(self.proc.as_ref())?;
        let place = paths::open_below(root.as_fd(), Path::new("/proc")).at("/proc")?;
        mounts::attach(proc.as_fd(), place.as_fd()).at("/proc")?;
        let nothing = paths::open_below(root.as_fd(), &Path::new("/sys").join(NOTHING))?;
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

    pub(super) fn bind(&mut self, bind: &Bind) -> Result<(), Problem> {
        let source = bind.base.join(&bind.below);
        let base = paths::open(&bind.base)?;
        let opened = match bind.missing {
            Missing::Create => paths::make_below(base.as_fd(), &bind.below),
            Missing::Refuse | Missing::Empty => paths::open_below(base.as_fd(), &bind.below).at(&source),
        };
        let mount = match opened {
            Ok(opened) => self.shown(&opened, bind).at(&source)?,
            Err(problem) if problem.errno == Errno::NOENT && bind.missing == Missing::Empty => {
                self.messages.push(format!(
                    "{} is not there: {} is empty",
                    source.display(),
                    bind.target.display()
                ));
                let flags = mounts::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
                mounts::make("tmpfs", &[("mode", Some("0755")), ("size", Some("4k"))], flags)?
            }
            Err(problem) => return Err(Problem { path: Some(source), ..problem }),
        };
        let root = have(self.root.as_ref())?;
        let place = paths::make_below(root.as_fd(), &bind.target)
            .map_err(|problem| Problem { path: Some(bind.target.clone()), ..problem })?;
        mounts::attach(mount.as_fd(), place.as_fd()).at(&bind.target)
    }

    /// A mount of an opened directory with the owner it has inside.
    fn shown(&mut self, opened: &OwnedFd, bind: &Bind) -> Result<OwnedFd, Problem> {
        let mount = mounts::copy(opened.as_fd(), true)?;
        let mut set = sys::NO_SETUID | sys::NO_DEVICES;
        if bind.read_only {
            set |= sys::READ_ONLY;
        }
        let owner = rustix::fs::fstat(opened)?;
        let users = self.owners_of(owner.st_uid, owner.st_gid)?;
        sys::set_mount(mount.as_fd(), set, users.map(OwnedFd::as_fd)).map_err(|errno| {
            let problem = Problem::from(errno);
            if errno == Errno::INVAL { problem.hint(NO_MAPPING) } else { problem }
        })?;
        Ok(mount)
    }

    /// A user namespace in which files of this owner belong to the sandbox's user.
    fn owners_of(&mut self, user: u32, group: u32) -> Result<Option<&OwnedFd>, Problem> {
        let UserMap::Range { first } = self.map else { return Ok(None) };
        if (user, group) == (UserMap::USER, UserMap::USER) {
            return self.users().map(Some);
        }
        let known = self.owners.iter().position(|(owner, _)| *owner == (user, group));
        let at = if let Some(at) = known {
            at
        } else {
            let [users, groups]: [Vec<Extent>; 2] = [user, group].map(|id| users::owner_map(first, id));
            let made = self.user_namespace(&users, &groups)?;
            self.owners.push(((user, group), made));
            self.owners.len() - 1
        };
        Ok(self.owners.get(at).map(|(_, namespace)| namespace))
    }

    pub(super) fn enter_root(&mut self) -> Result<(), Problem> {
        let root = have(self.root.as_ref())?;
        rustix::process::fchdir(root)?;
        // The old root lands below the new one's own directory and is taken away from there.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }
}

/// An empty directory of `/sys`, which covers directories.
const NOTHING: &str = "kernel";

/// The directory of the small file system that is a layer.
const OWN: &str = "own";

fn write_owned(
    directory: &OwnedFd,
    path: &Path,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let parent = paths::make_all_owned(directory.as_fd(), parent, owner)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, content)?;
    owner.map_or(Ok(()), |(user, group)| {
        rustix::fs::fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    })
}

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
