//! For an ordinary user: a user namespace in which the server has the rights a launch needs.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use thiserror::Error;

use super::sys;

/// Why the namespaces could not be entered.
#[derive(Debug, Error)]
pub enum OuterError {
    /// The kernel refuses a user namespace.
    #[error(
        "an ordinary user may make no user namespace here ({source}); set user.max_user_namespaces above 0, \
         kernel.unprivileged_userns_clone=1 (Debian) and kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), \
         or run as root"
    )]
    Refused {
        /// What the kernel said.
        source: io::Error,
    },
    /// The map of users could not be written.
    #[error("{file} cannot be written: {source}")]
    Map {
        /// Which.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The namespaces of an earlier server's relay could not be joined.
    #[error("the namespaces of process {pid} cannot be joined: {source}")]
    Join {
        /// The relay.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Enters a user namespace and a mount namespace of its own, in which this process is root; those of the relay of an
/// earlier server where there is one, because sandboxes belong to them. Call it before any thread is started.
///
/// # Errors
/// The kernel refuses; nothing has changed then, or the process is of no further use and should end.
pub fn enter_outer_namespaces(relay: Option<i32>) -> Result<(), OuterError> {
    match relay {
        Some(pid) => join(pid).map_err(|errno| OuterError::Join { pid, source: errno.into() }),
        None => make(),
    }
}

fn join(pid: i32) -> Result<(), Errno> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    // The user namespace first: it brings the rights for the other.
    sys::enter_namespace(process.as_fd(), libc::CLONE_NEWUSER)?;
    sys::enter_namespace(process.as_fd(), libc::CLONE_NEWNS)?;
    sys::set_user(0)
}

fn make() -> Result<(), OuterError> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|errno| OuterError::Refused { source: errno.into() })?;
    let write = |file: &'static str, content: String| {
        std::fs::write(file, content).map_err(|source| OuterError::Map { file, source })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {user} 1\n"))?;
    write("/proc/self/gid_map", format!("0 {group} 1\n"))
}
