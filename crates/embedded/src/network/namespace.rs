//! Network namespaces: made by a thread that steps into a new one, sets it up, and steps out again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Once;
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::netlink::Socket;
use super::{NetworkError, links};

/// The namespace of the calling thread. Not `/proc/self`, which is the process's first thread.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";
/// The number of the loopback interface in every network namespace.
const LOOPBACK: i32 = 1;

/// What every sandbox's namespace is set to. They need a writable /proc/sys; where there is none (a
/// container), sandboxes work without them.
const SETTINGS: [(&str, &str); 3] = [
    // Programs inside have no capabilities and may listen on port 80 all the same: it is their own loopback.
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    // The same for `ping`; inside, there is one group that matters.
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    // Interfaces that come later have no IPv6; loopback, which is here already, keeps it.
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Makes network namespaces. Bound to the thread that made it, which has to be one of its own: while a
/// namespace is made, the thread stands in it.
#[derive(Debug)]
pub(crate) struct Maker {
    home: OwnedFd,
}

/// A namespace that was just made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The namespace.
    pub(crate) namespace: OwnedFd,
    /// A socket inside it, for those who set up more of it. It is ours: sandboxes never see it.
    pub(crate) route: Socket,
    /// Whether the settings of namespaces could be made.
    pub(crate) settings: Result<(), String>,
}

impl Made {
    /// Says once in a process what programs inside will miss.
    pub(crate) fn warn_of_settings(&self) {
        static SAID: Once = Once::new();
        if let Err(why) = &self.settings {
            SAID.call_once(|| {
                tracing::warn!(why, "programs in sandboxes cannot listen below port 1024 or ping");
            });
        }
    }

    /// One that is in use already.
    pub(crate) fn from_existing(namespace: OwnedFd) -> Result<Self, NetworkError> {
        let route = inside(&namespace, Socket::route)?.map_err(NetworkError::Loopback)?;
        Ok(Self { namespace, route, settings: Ok(()) })
    }
}

impl Maker {
    /// For the calling thread.
    pub(crate) fn for_this_thread() -> Result<Self, NetworkError> {
        let home = of_this_thread().map_err(NetworkError::Home)?;
        if enter(&home).is_ok() {
            return Ok(Self { home });
        }
        // The machine's namespace is not an ordinary user's to enter, even from inside: a thread that left it
        // never comes back. An empty one will do, as ordinary users have no open networks.
        unshare()?;
        Ok(Self { home: of_this_thread().map_err(NetworkError::Home)? })
    }

    /// Makes a namespace with its loopback up.
    pub(crate) fn make(&self) -> Result<Made, NetworkError> {
        unshare()?;
        let made = set_up();
        self.go_home()?;
        made
    }

    fn go_home(&self) -> Result<(), NetworkError> {
        enter(&self.home).map_err(NetworkError::Home)
    }
}

/// Moves the calling thread to a new namespace.
#[allow(unsafe_code)]
fn unshare() -> Result<(), NetworkError> {
    // SAFETY: a new network namespace shares nothing with memory or descriptors of this process; the only effect
    // is on this thread, which `Maker` says is not used for anything else.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|errno| NetworkError::Unshare(errno.into()))
}

fn set_up() -> Result<Made, NetworkError> {
    let namespace = of_this_thread().map_err(NetworkError::Home)?;
    let mut route = Socket::route().map_err(NetworkError::Loopback)?;
    links::up(&mut route, LOOPBACK).map_err(NetworkError::Loopback)?;
    Ok(Made { namespace, route, settings: settings() })
}

fn settings() -> Result<(), String> {
    for (path, value) in SETTINGS {
        match std::fs::write(path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written.map_err(|error| format!("{path} stays as it is: {error}"))?,
        }
    }
    Ok(())
}

/// The network namespace of the calling thread.
pub(crate) fn of_this_thread() -> io::Result<OwnedFd> {
    Ok(open(Path::new(OF_THIS_THREAD), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The network namespace of a process.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn of_process(pid: i32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

/// Moves the calling thread into a namespace, for good.
pub(crate) fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Does something in a namespace, on a thread of its own: no other thread ever stands in the wrong one.
pub(crate) fn inside<T: Send>(
    namespace: &OwnedFd,
    act: impl FnOnce() -> T + Send,
) -> Result<T, NetworkError> {
    let entered = thread::scope(|scope| {
        let thread = thread::Builder::new().name("stockade-inside".to_owned()).spawn_scoped(scope, || {
            enter(namespace)?;
            Ok(act())
        });
        thread.map_err(NetworkError::Thread)?.join().map_err(|_| NetworkError::Ended)
    })?;
    entered.map_err(NetworkError::Home)
}
