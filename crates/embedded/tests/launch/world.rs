//! What tests stand on: a launcher, directories, network namespaces.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stockade_embedded::facts::MachineFacts;
use stockade_embedded::launch::spec::{RootFs, UserMap, WritableLayer};
use stockade_embedded::launch::{LaunchFds, LaunchSpec, Launcher, LauncherOptions};
use stockade_embedded::rootfs::HostSystem;

use crate::sandbox::Sandbox;

/// Whose rights the tests are run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Ordinary,
}

pub(crate) const PORT: u16 = 8080;
/// Beyond what anybody gives to users; each sandbox takes the next range.
const FIRST_USER: u32 = 1_900_000_000;

pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) facts: MachineFacts,
    pub(crate) system: HostSystem,
    pub(crate) runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
    launcher: Option<Launcher>,
    made: AtomicU32,
}

impl World {
    pub(crate) fn new(kind: Kind, facts: MachineFacts) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let directory = tempfile::Builder::new().prefix("stockade-launch-").tempdir().unwrap();
        let mut world = Self {
            kind,
            facts,
            system: HostSystem::probe(),
            runtime,
            directory,
            launcher: None,
            made: AtomicU32::new(0),
        };
        fs::create_dir(world.path("stage")).unwrap();
        world.launcher = Some(world.start_launcher());
        world
    }

    pub(crate) fn start_launcher(&self) -> Launcher {
        self.launcher_hiding(self.directory.path().to_owned())
    }

    /// Another launcher, whose sandboxes do not see a directory.
    pub(crate) fn launcher_hiding(&self, hidden: PathBuf) -> Launcher {
        let _context = self.runtime.enter();
        Launcher::start(LauncherOptions {
            facts: self.facts.clone(),
            system: self.system.clone(),
            stage: self.path("stage"),
            hidden: vec![hidden],
            agent: std::env::var_os("STOCKADE_AGENT").map(PathBuf::from),
        })
        .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn launcher(&self) -> &Launcher {
        self.launcher.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new empty directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!("{name}-{number}"));
        fs::create_dir(&path).unwrap();
        path
    }

    /// A sandbox of its own users, its files in a new directory.
    pub(crate) fn spec(&self, name: &str) -> LaunchSpec {
        let writable = self.directory(name);
        let number = self.made.load(Ordering::Relaxed);
        LaunchSpec {
            id: format!("{name}-{number}"),
            users: match self.kind {
                Kind::Root => UserMap::Range { first: FIRST_USER + number * UserMap::COUNT },
                Kind::Ordinary => UserMap::Single,
            },
            root: RootFs::HostSystem,
            writable: WritableLayer::Disk(writable),
            binds: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            name_server: None,
            known_host: None,
            agent_port: PORT,
            processes: None,
            grace: Duration::from_secs(1),
            only_reads: None,
            shared_memory: 64 << 20,
            groups: Vec::new(),
        }
    }

    pub(crate) fn fds(&self, name: &str) -> LaunchFds {
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        LaunchFds { netns: network(), log: log.into(), join: Vec::new(), commands: Vec::new() }
    }

    /// Launches and waits until the agent listens.
    pub(crate) fn launch(&self, spec: &LaunchSpec) -> Sandbox {
        self.launch_with(self.launcher(), spec)
    }

    pub(crate) fn launch_with(&self, launcher: &Launcher, spec: &LaunchSpec) -> Sandbox {
        let fds = self.fds(&spec.id);
        let netns = fds.netns.try_clone().unwrap();
        let launched = self.runtime.block_on(launcher.launch(spec, fds));
        let launched = launched.unwrap_or_else(|error| panic!("{error}"));
        let sandbox = Sandbox::new(launched, netns);
        if !sandbox.becomes_ready() {
            panic!("{}", fs::read_to_string(self.path(&format!("{}.log", spec.id))).unwrap());
        }
        sandbox
    }

    pub(crate) fn plain(&self, name: &str) -> Sandbox {
        self.launch(&self.spec(name))
    }

    /// Gives a directory to somebody.
    pub(crate) fn give(&self, path: &Path, user: u32) {
        std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    }
}

/// A network namespace with its loopback up, as the network module makes them.
#[allow(unsafe_code)]
pub(crate) fn network() -> OwnedFd {
    std::thread::spawn(|| {
        // SAFETY: only this thread changes its network, and it ends here.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                .unwrap();
        // SAFETY: a structure of numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap();
        // SAFETY: the structure outlives the call and is the one this request takes.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// Runs something in a network namespace.
#[allow(unsafe_code)]
pub(crate) fn within<T: Send>(network: &OwnedFd, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: only this thread changes its network, and it ends here.
                let entered = unsafe { libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
                what()
            })
            .join()
            .unwrap()
    })
}
