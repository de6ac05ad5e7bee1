//! What all sandboxes share, prepared once by the launcher in a file system of its own that nobody else sees.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::system::HostSystem;
use super::{etc, mirror, places};
use crate::launch::failure::{At, Problem};
use crate::launch::spec::UserMap;
use crate::launch::{mounts, paths, sys, users};

/// Whom the prepared files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The id the sandbox's user has inside; mounts translate it for each sandbox. Where those of file systems in
    /// memory cannot, the layers lie on the disk.
    Mapped { in_memory: bool },
    /// Us, who are every sandbox's user.
    Ours,
    /// Root, with everybody allowed to write: without translation no sandbox's user can own them.
    Everybody,
}

/// What there is to prepare.
pub(crate) struct StageOptions<'a> {
    /// A directory for this alone; what is mounted there is seen by the launcher and its children alone.
    pub(crate) at: &'a Path,
    pub(crate) system: &'a HostSystem,
    pub(crate) owner: Owner,
    /// Places of the machine that no sandbox may see, though they may lie in its system.
    pub(crate) hidden: &'a [PathBuf],
}

/// The prepared directories.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    at: PathBuf,
    /// Where the layers are.
    layers: PathBuf,
}

/// Directories of the skeleton.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "home",
    "home/gem",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "run/lock",
    "srv",
    "sys",
    "tmp",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/spool",
    "var/tmp",
];
/// Those in which everybody may write.
pub(crate) const FOR_EVERYBODY: &[&str] = &["tmp", "var/tmp", "run/lock"];
/// Memory for all of it, at most.
const SIZE: &str = "128m";

impl Stage {
    /// Where a mount can be put together, below the stage.
    const ASSEMBLY: &'static str = "assembly";
    /// What is shown as `/sys`.
    const SYS: &'static str = "sys";
    /// An empty directory of that, which covers directories elsewhere.
    pub(crate) const NOTHING: &'static str = "kernel";
    /// Where mounts are attached that are only parts of others.
    const ASIDE: &'static str = "aside";
    /// What sandboxes have as layers.
    const LAYERS: &'static str = "layers";

    /// Mounts the stage and fills it. The caller has a mount namespace of its own.
    pub(crate) fn prepare(options: &StageOptions<'_>) -> Result<Self, Problem> {
        let place = paths::open(options.at)?;
        let settings = [("size", Some(SIZE)), ("mode", Some("0755"))];
        let mount = mounts::make("tmpfs", &settings, mounts::INERT).at("tmpfs")?;
        mounts::attach(mount.as_fd(), place.as_fd()).at(options.at)?;
        let stage = Self { at: options.at.to_owned(), layers: options.at.join(Self::LAYERS) };
        stage.fill(options).at(options.at)?;
        if options.owner == (Owner::Mapped { in_memory: false }) {
            stage.move_to_disk(place.as_fd()).at(options.at)?;
        }
        Ok(stage)
    }

    /// Moves the layers to the directory on which the stage was mounted. Those of an earlier launcher may be there, below
    /// sandboxes that run: what is the same stays as it is.
    fn move_to_disk(&self, place: BorrowedFd<'_>) -> Result<(), Problem> {
        let mount = mounts::copy(place, false)?;
        check_mapping(place)?;
        mirror::mirror(&self.layers, Path::new(&mounts::name_of(place)))?;
        fs::remove_dir_all(&self.layers)?;
        fs::create_dir(&self.layers)?;
        sys::set_mount(mount.as_fd(), sys::NO_SETUID | sys::NO_DEVICES | sys::NO_EXECUTION, None)?;
        Ok(mounts::attach(mount.as_fd(), paths::open(&self.layers)?.as_fd())?)
    }

    fn fill(&self, options: &StageOptions<'_>) -> io::Result<()> {
        for directory in [&self.assembly(), &self.aside(), &self.layers] {
            fs::create_dir(directory)?;
        }
        fill_sys(&self.sys())?;
        let root = self.layer("root");
        fs::create_dir(&root)?;
        for directory in DIRECTORIES {
            fs::create_dir(root.join(directory))?;
        }
        for (link, to) in &options.system.links {
            symlink(to, root.join(inside(link)))?;
        }
        for directory in &options.system.directories {
            // Those below another appear in that one.
            if directory.components().count() == 2 {
                fs::create_dir_all(root.join(inside(directory)))?;
            }
            let layer = self.layer(&name_of_places(directory));
            fs::create_dir(&layer)?;
            places::fill(directory, &layer, options.hidden)?;
            give(&layer, options.owner)?;
        }
        symlink("/run", root.join("var/run"))?;
        symlink("/run/lock", root.join("var/lock"))?;
        etc::fill(Path::new("/etc"), &root.join("etc"))?;
        home(&root.join("home/gem"))?;
        give(&root, options.owner)?;
        for directory in FOR_EVERYBODY {
            fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o1777))?;
        }
        Ok(())
    }

    /// A layer, by its name.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        self.layers.join(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Where a child puts together what becomes its root.
    pub(crate) fn assembly(&self) -> PathBuf {
        self.path(Self::ASSEMBLY)
    }

    /// A `/sys` with nothing of the machine's but the numbers of its processors.
    pub(crate) fn sys(&self) -> PathBuf {
        self.path(Self::SYS)
    }

    /// Where a child attaches what is only a part of something else.
    pub(crate) fn aside(&self) -> PathBuf {
        self.path(Self::ASIDE)
    }
}

/// The first of some range: with what is tried nothing is made.
const ANY_USERS: u32 = 0x7000_0000;

/// Better known now than when a sandbox is to be made.
fn check_mapping(place: BorrowedFd<'_>) -> Result<(), Problem> {
    let map = UserMap::Range { first: ANY_USERS };
    let lines = users::sandbox_map(map);
    let proc = paths::open(Path::new("/proc"))?;
    let users = users::make(proc.as_fd(), map, &lines, &lines)?;
    let mount = mounts::copy(place, false)?;
    sys::set_mount(mount.as_fd(), 0, Some(users.as_fd()))
        .map_err(|errno| Problem::from(errno).hint(mounts::NO_MAPPING))
}

/// The name of the layer over a directory of the system.
pub(crate) fn name_of_places(directory: &Path) -> String {
    format!("places{}", directory.to_string_lossy().replace('/', "."))
}

fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn fill_sys(sys: &Path) -> io::Result<()> {
    let processors = sys.join("devices/system/cpu");
    for directory in [&sys.join("fs/cgroup"), &sys.join(Stage::NOTHING), &processors] {
        fs::create_dir_all(directory)?;
    }
    for name in ["online", "possible", "present"] {
        // The kernel may have no such file; then neither has the sandbox.
        if let Ok(content) = fs::read(Path::new("/sys/devices/system/cpu").join(name)) {
            fs::write(processors.join(name), content)?;
            fs::set_permissions(processors.join(name), fs::Permissions::from_mode(0o444))?;
        }
    }
    Ok(())
}

/// What a shell reads at its start, as new users get it.
fn home(home: &Path) -> io::Result<()> {
    for name in [".bashrc", ".profile", ".bash_logout"] {
        if let Ok(content) = fs::read(Path::new("/etc/skel").join(name)) {
            fs::write(home.join(name), content)?;
        }
    }
    Ok(())
}

fn give(path: &Path, owner: Owner) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    match owner {
        Owner::Mapped { .. } => std::os::unix::fs::lchown(path, Some(UserMap::USER), Some(UserMap::USER))?,
        Owner::Ours => {}
        Owner::Everybody if found.is_symlink() => {}
        Owner::Everybody => {
            let mode = found.permissions().mode();
            fs::set_permissions(
                path,
                fs::Permissions::from_mode(mode | (mode & 0o700) >> 3 | (mode & 0o700) >> 6),
            )?;
            chown(path, Some(0), Some(0))?;
        }
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}
