//! Where relay and server find each other: a socket and two locks in the state directory.
//!
//! The directory belongs to one user and nobody else may look into it. Both sides check besides who the
//! other one is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::RelayError;

const SOCKET: &str = "relay.sock";
/// Held by a relay as long as it lives.
const LIFE: &str = "relay.lock";
/// Held by whoever starts a relay, and handed to it, until it can be connected to.
const START: &str = "relay.start.lock";
const LOG: &str = "relay.log";
/// A log that is longer when a relay starts begins anew.
const MAX_LOG: i64 = 1024 * 1024;
/// Servers that may wait to be accepted; there is one at a time.
const BACKLOG: i32 = 16;

/// The state directory, open.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Opens the directory and checks that it is ours alone.
    pub(super) fn open(path: &Path) -> Result<Self, RelayError> {
        let wrong = |problem: String| RelayError::Place { path: path.to_owned(), problem };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            open(path, flags, Mode::empty()).map_err(|errno| wrong(io::Error::from(errno).to_string()))?;
        let stat = fstat(&directory).map_err(|errno| wrong(io::Error::from(errno).to_string()))?;
        let ours = rustix::process::geteuid().as_raw();
        if stat.st_uid != ours {
            return Err(wrong(format!("it belongs to user {} and has to belong to {ours}", stat.st_uid)));
        }
        if stat.st_mode & 0o077 != 0 {
            let mode = stat.st_mode & 0o777;
            return Err(wrong(format!("others may enter it (mode {mode:o}); run chmod 700 on it")));
        }
        Ok(Self { directory, path: path.to_owned() })
    }

    /// The lock of whoever starts a relay. Waits for its turn.
    pub(super) fn lock_start(&self) -> io::Result<OwnedFd> {
        let file = self.file(START, OFlags::RDWR)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// The lock of the one relay; `None` when another lives.
    pub(super) fn lock_life(&self) -> io::Result<Option<OwnedFd>> {
        let file = self.file(LIFE, OFlags::RDWR)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until no relay lives: one that cannot be connected to any more may still have ports to close.
    pub(super) fn wait_for_end(&self) -> io::Result<()> {
        Ok(flock(self.file(LIFE, OFlags::RDWR)?, FlockOperation::LockExclusive)?)
    }

    /// What a relay says when nobody listens.
    pub(super) fn log(&self) -> io::Result<OwnedFd> {
        let log = self.file(LOG, OFlags::WRONLY | OFlags::APPEND)?;
        if fstat(&log)?.st_size > MAX_LOG {
            rustix::fs::ftruncate(&log, 0)?;
        }
        Ok(log)
    }

    fn file(&self, name: &str, access: OFlags) -> io::Result<OwnedFd> {
        let flags = access | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    /// The socket of a relay. Only the holder of the life lock may ask for it: an older one is removed.
    pub(super) fn bind(&self) -> io::Result<OwnedFd> {
        match unlinkat(&self.directory, SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let socket = packet_socket()?;
        bind(&socket, &self.address()?)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    }

    /// A connection to the relay, and its process; `None` when there is no relay.
    pub(super) fn connect(&self) -> Result<Option<(OwnedFd, i32)>, RelayError> {
        let socket = packet_socket().map_err(RelayError::Socket)?;
        match connect(&socket, &self.address().map_err(RelayError::Socket)?) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(errno) => return Err(RelayError::Socket(errno.into())),
        }
        let peer = peer(&socket).map_err(RelayError::Socket)?;
        if peer.uid != rustix::process::geteuid().as_raw() {
            let problem = format!("its relay runs as user {}, which is not us", peer.uid);
            return Err(RelayError::Place { path: self.path.clone(), problem });
        }
        Ok(Some((socket, peer.pid)))
    }

    /// Through the open directory: addresses of sockets are too short for many paths.
    fn address(&self) -> io::Result<SocketAddrUnix> {
        let name = format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd());
        Ok(SocketAddrUnix::new(name)?)
    }
}

/// The process of the relay of a state directory, if one lives.
///
/// # Errors
/// When the directory is not ours alone, or the relay is somebody else's.
pub fn find(directory: &Path) -> Result<Option<i32>, RelayError> {
    match std::fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    Ok(Place::open(directory)?.connect()?.map(|(_, pid)| pid))
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Who is at the other end.
pub(super) struct Peer {
    /// 0 when it is in a process namespace that ours does not see.
    pub(super) pid: i32,
    pub(super) uid: u32,
}

/// Who connected, or who listened.
#[allow(unsafe_code)]
pub(super) fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: the pointers are to live variables of the types that SO_PEERCRED fills, and the length says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: credentials.pid, uid: credentials.uid })
}
