//! Mounting, by descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::sys;

/// What to say where a mount cannot show other owners.
pub(crate) const NO_MAPPING: &str = "the file system there cannot show other owners than its files have; put the directory \
    on ext4, xfs or btrfs, and use Linux 5.12 or later (6.3 for tmpfs)";

/// An option of a file system: with a value, or a flag.
pub(crate) type Setting<'a> = (&'a str, Option<&'a str>);

/// A new file system, attached nowhere yet.
pub(crate) fn make(kind: &str, settings: &[Setting<'_>], flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in settings {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *name, *value)?,
            None => fsconfig_set_flag(context.as_fd(), *name)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A copy of the mount at an opened path, attached nowhere yet; with `below`, of the mounts below it too.
pub(crate) fn copy(place: BorrowedFd<'_>, below: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if below {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}

/// Attaches a mount at an opened place, over whatever is mounted there already.
pub(crate) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// How an opened place can be named to an interface that takes paths alone.
pub(crate) fn name_of(place: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

/// Layers to be mounted as one directory.
pub(crate) struct Layers<'a> {
    /// The shared ones, the topmost first.
    pub(crate) lower: &'a [OwnedFd],
    pub(crate) upper: &'a OwnedFd,
    pub(crate) work: &'a OwnedFd,
    pub(crate) user_marks: bool,
}

/// Mounts layers as one directory, attached nowhere yet.
pub(crate) fn overlay(layers: &Layers<'_>) -> Result<OwnedFd, Errno> {
    let lower: Vec<String> = layers.lower.iter().map(|layer| name_of(layer.as_fd())).collect();
    let (lower, upper, work) = (lower.join(":"), name_of(layers.upper.as_fd()), name_of(layers.work.as_fd()));
    let mut settings: Vec<Setting<'_>> = vec![
        ("source", Some("stockade")),
        ("lowerdir", Some(&lower)),
        ("upperdir", Some(&upper)),
        ("workdir", Some(&work)),
    ];
    if layers.user_marks {
        settings.push(("userxattr", None));
    }
    make("overlay", &settings, NO_SETUID_NO_DEVICES)
}

/// For file systems that hold nothing but files.
pub(crate) const NO_SETUID_NO_DEVICES: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// For file systems nothing is executed from.
pub(crate) const INERT: MountAttrFlags = NO_SETUID_NO_DEVICES.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Covers a place so that it appears empty, whether file or directory. A place that is not there stays so.
pub(crate) fn cover(
    directory: BorrowedFd<'_>,
    path: &Path,
    nothing: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
    let place = match rustix::fs::openat(directory, path, flags, rustix::fs::Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    let source = if kind.is_dir() { nothing } else { file };
    let copied = copy(source, false)?;
    attach(copied.as_fd(), place.as_fd())
}

/// Makes a place read-only that is part of a larger mount.
pub(crate) fn protect(directory: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
    let place = match rustix::fs::openat(directory, path, flags, rustix::fs::Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let copied = copy(place.as_fd(), true)?;
    let set = sys::READ_ONLY | sys::NO_SETUID | sys::NO_DEVICES | sys::NO_EXECUTION;
    sys::set_mount(copied.as_fd(), set, None)?;
    attach(copied.as_fd(), place.as_fd())
}
