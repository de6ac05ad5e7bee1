//! Everything about one sandbox that its launch depends on, as plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One sandbox to launch. Holds no descriptor and reads nothing: the steps follow from it alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Its id; also its host name.
    pub id: String,
    /// Which users of the machine the users inside are.
    pub users: UserMap,
    /// What it sees as its system.
    pub root: RootFs,
    /// Where what it writes outside its mounts goes.
    pub writable: WritableLayer,
    /// Directories of the machine it sees; a place comes after the places above it.
    pub binds: Vec<Bind>,
    /// The environment of the agent and of commands, beyond what every sandbox has. May hold secrets.
    pub environment: BTreeMap<String, String>,
    /// The name server; `None` leaves names unresolved.
    pub name_server: Option<IpAddr>,
    /// A host name that callers use, which the agent would not know otherwise.
    #[serde(default)]
    pub known_host: Option<String>,
    /// The port the agent listens on, on all addresses of the sandbox.
    pub agent_port: u16,
    /// Processes and threads, where control groups may not limit them.
    #[serde(default)]
    pub processes: Option<u32>,
    /// Time between a request to end and the end.
    pub grace: Duration,
    /// Why nothing may change any more: everything is shown read-only, and the agent runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_reads: Option<String>,
    /// Bytes that `/dev/shm` may hold; they count as memory.
    #[serde(default = "default_shared_memory")]
    pub shared_memory: u64,
    /// Its control groups, as it sees them. Known when they are made, and not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ShownGroup>,
}

/// What `/dev/shm` may hold unless told otherwise, as in containers.
pub const SHARED_MEMORY: u64 = 64 << 20;

/// Of records that were written before it could be chosen.
fn default_shared_memory() -> u64 {
    SHARED_MEMORY
}

/// One of a sandbox's own control groups, which it sees below `/sys/fs/cgroup` and cannot change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownGroup {
    /// The group's directory.
    pub path: PathBuf,
    /// The tree's name in version 1, such as `cpu,cpuacct`; in version 2, where there is one tree, empty.
    pub tree: String,
    /// Other names of it, such as `cpu`.
    pub links: Vec<String>,
}

impl fmt::Debug for LaunchSpec {
    /// Without the environment's values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("id", &self.id)
            .field("users", &self.users)
            .field("root", &self.root)
            .field("writable", &self.writable)
            .field("binds", &self.binds)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Which users of the machine the users inside a sandbox are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserMap {
    /// A range of its own: id `n` inside is `first + n` outside, for [`UserMap::COUNT`] ids.
    Range {
        /// The first id outside.
        first: u32,
    },
    /// The sandbox's one user is whoever runs the server.
    Single,
}

impl UserMap {
    /// How many ids a range has.
    pub const COUNT: u32 = 65_536;
    /// The id inside of the user whom the agent and all commands run as; the AIO sandbox calls it `gem`.
    pub const USER: u32 = 1000;

    /// The ids outside of the sandbox's own user; `None` where that is us.
    pub(super) fn owner(self) -> Option<(u32, u32)> {
        match self {
            Self::Range { first } => Some((first + Self::USER, first + Self::USER)),
            Self::Single => None,
        }
    }
}

/// Whether the program that waits to become an agent has to execute itself for it, in the sandbox's user namespace.
///
/// What `/proc` shows of a process that nobody may look into belongs to root in the user namespace in which its program
/// was executed. With one user only that is the sandbox's own user, which could see the agent's descriptors.
pub(super) fn executes_itself(users: UserMap) -> bool {
    users == UserMap::Single
}

/// What a sandbox sees as its system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RootFs {
    /// The machine's own system directories.
    HostSystem,
}

/// Where what a sandbox writes outside its mounts goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WritableLayer {
    /// A directory of the machine, the sandbox's own.
    Disk(PathBuf),
    /// Memory: gone with the sandbox's processes.
    Tmpfs {
        /// The most it may hold.
        bytes: u64,
    },
}

/// One directory of the machine that a sandbox sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// A directory the operator named; symbolic links on the way to it are the operator's own.
    pub base: PathBuf,
    /// The rest of the way, where sandboxes may have written: no symbolic link is followed.
    pub below: PathBuf,
    /// Where it appears inside.
    pub target: PathBuf,
    /// Whether it may not be written to.
    pub read_only: bool,
    /// What happens when it is not there.
    pub missing: Missing,
}

/// What happens when a directory to bind is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The launch fails and names it.
    Refuse,
    /// It is made, with the owner of the directory it is made in.
    Create,
    /// An empty read-only directory appears in its place, and the answer says so.
    Empty,
}
