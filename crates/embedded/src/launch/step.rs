//! The steps of a launch, as data: what a sandbox's first process does before it becomes the agent.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{Bind, Missing, ShownGroup, UserMap, WritableLayer};

/// One step. They are done in order; the first that fails ends the launch, and its process with all that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SetupStep {
    /// Join the sandbox's control groups, so that everything from here on counts as its own.
    JoinControlGroups,
    /// Enter the network namespace made for the sandbox, and keep no way back.
    EnterNetwork,
    /// Leave the machine's mounts, messages, host name and view of control groups.
    NewNamespaces,
    /// Set the host name.
    HostName(String),
    /// Make a `/proc` that shows the sandbox's processes alone; it is attached later.
    FreshProc,
    /// Make the sandbox's users.
    MakeUsers(UserMap),
    /// Open what holds the files the sandbox writes.
    OpenWritable(WritableLayer),
    /// Make room in memory for what differs from sandbox to sandbox.
    MakeOwnLayer,
    /// Mount a directory whose lower layers are shared and whose top is the sandbox's own.
    Overlay(Overlay),
    /// Mount `/dev`, with the devices every program expects and terminals of its own.
    Devices {
        /// Bytes that `/dev/shm` may hold.
        shared_memory: u64,
    },
    /// Attach the fresh `/proc`, and cover what tells of the machine.
    MountProc,
    /// Mount a `/sys` with nothing of the machine's but the numbers of its processors, and the sandbox's own groups.
    MountSys(Vec<ShownGroup>),
    /// Execute our own program and wait, in it, for the sandbox that all this is for. What comes before is the same for
    /// many sandboxes, and can be done ahead.
    AwaitSandbox,
    /// Fill in what differs from sandbox to sandbox.
    FillOwnLayer(OwnLayer),
    /// Show a directory of the machine.
    Bind(Bind),
    /// Let nothing be written any more.
    OnlyRead,
    /// Make all this the root directory, and let go of the machine's.
    EnterRoot,
    /// Limit what single processes may use.
    LimitProcesses,
    /// Become the sandbox's own user.
    BecomeUser(UserMap),
    /// Limit how many processes there are of that user, its own user namespace's alone.
    LimitUser(u32),
    /// Give up what setuid programs would bring.
    NoNewPrivileges,
    /// Give up all capabilities.
    DropCapabilities,
    /// Restrict with Landlock, in the kernel's version.
    Landlock(u32),
    /// Filter system calls.
    FilterSystemCalls,
    /// Become the agent.
    Execute {
        /// What the agent is told; descriptors are added.
        arguments: Vec<String>,
        /// Its environment, as `NAME=value`. May hold secrets.
        environment: Vec<String>,
    },
}

/// What differs from sandbox to sandbox in its system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLayer {
    /// Files, and all that is in them.
    pub files: Vec<(PathBuf, String)>,
    /// Places for directories of the machine.
    pub directories: Vec<PathBuf>,
}

/// A directory in layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Where it appears inside.
    pub target: PathBuf,
    /// Its name among the sandbox's writable directories.
    pub name: String,
    /// The shared layers, the topmost first.
    pub layers: Vec<Layer>,
    /// Whether the layers' owners are shown as the sandbox's users.
    pub mapped: bool,
    /// Whether the layers' marks are kept in attributes that an ordinary user may set.
    pub user_marks: bool,
}

/// A layer that all sandboxes share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// What [`SetupStep::MakeOwnLayer`] made and [`SetupStep::FillOwnLayer`] fills.
    Own,
    /// What the launcher prepared under this name.
    Prepared(String),
    /// A directory of the machine.
    Machine(PathBuf),
}

/// The steps before [`SetupStep::AwaitSandbox`], and those after it.
pub(super) fn split(mut steps: Vec<SetupStep>) -> (Vec<SetupStep>, Vec<SetupStep>) {
    let first = steps.iter().position(|step| *step == SetupStep::AwaitSandbox).unwrap_or(steps.len());
    let mut rest = steps.split_off(first);
    rest.retain(|step| *step != SetupStep::AwaitSandbox);
    (steps, rest)
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinControlGroups => f.write_str("join the sandbox's control groups"),
            Self::EnterNetwork => f.write_str("enter the sandbox's network namespace"),
            Self::NewNamespaces => f.write_str("unshare mounts, messages, host name and control groups"),
            Self::HostName(name) => write!(f, "set the host name {name}"),
            Self::FreshProc => f.write_str("make a fresh /proc"),
            Self::MakeUsers(users) => write!(f, "make users: {users}"),
            Self::OpenWritable(layer) => write!(f, "keep what is written in {layer}"),
            Self::MakeOwnLayer => {
                f.write_str("make a layer in memory for what differs from sandbox to sandbox")
            }
            Self::AwaitSandbox => f.write_str("execute our own program, and wait in it for the sandbox"),
            Self::FillOwnLayer(layer) => write!(f, "{layer}"),
            Self::Overlay(overlay) => write!(f, "{overlay}"),
            Self::Devices { shared_memory } => write!(
                f,
                "mount /dev with null, zero, full, random, urandom, tty, pts, and shm for {shared_memory} bytes"
            ),
            Self::MountProc => f.write_str("mount the fresh /proc and cover what tells of the machine"),
            Self::MountSys(groups) => {
                f.write_str("mount an empty read-only /sys")?;
                groups.iter().try_for_each(|group| write!(f, ", with its group {}", group.path.display()))
            }
            Self::Bind(bind) => write!(f, "{bind}"),
            Self::OnlyRead => f.write_str("make all of it read-only"),
            Self::EnterRoot => f.write_str("make it the root and detach the machine's"),
            Self::LimitProcesses => f.write_str("limit what single processes may use"),
            Self::LimitUser(most) => write!(f, "limit its processes and threads to {most}"),
            Self::BecomeUser(_) => write!(f, "become user {}", UserMap::USER),
            Self::NoNewPrivileges => f.write_str("refuse new privileges"),
            Self::DropCapabilities => f.write_str("drop all capabilities"),
            Self::Landlock(abi) => write!(f, "restrict with Landlock, ABI {abi}"),
            Self::FilterSystemCalls => f.write_str("filter system calls"),
            Self::Execute { arguments, environment } => show_execute(f, arguments, environment),
        }
    }
}

fn show_execute(f: &mut fmt::Formatter<'_>, arguments: &[String], environment: &[String]) -> fmt::Result {
    write!(f, "become the agent: {}; environment:", arguments.join(" "))?;
    for variable in environment {
        // The values may be secrets.
        write!(f, " {}", variable.split('=').next().unwrap_or_default())?;
    }
    Ok(())
}

impl fmt::Display for OwnLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("make in memory")?;
        let files = self.files.iter().map(|(path, _)| path).chain(&self.directories);
        files.into_iter().try_for_each(|path| write!(f, " {}", path.display()))
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount {} from layers: own {}", self.target.display(), self.name)?;
        for layer in &self.layers {
            match layer {
                Layer::Own => f.write_str(", own files")?,
                Layer::Prepared(name) => write!(f, ", prepared {name}")?,
                Layer::Machine(path) => write!(f, ", the machine's {}", path.display())?,
            }
        }
        if self.mapped { f.write_str(", with the sandbox's owners") } else { Ok(()) }
    }
}

impl fmt::Display for UserMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first } => write!(f, "{first} to {}", first + (Self::COUNT - 1)),
            Self::Single => f.write_str("the one that runs the server"),
        }
    }
}

impl fmt::Display for WritableLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => write!(f, "{}", path.display()),
            Self::Tmpfs { bytes } => write!(f, "memory, at most {bytes} bytes"),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "read-only" } else { "writable" };
        let missing = match self.missing {
            Missing::Refuse => "",
            Missing::Create => ", made if missing",
            Missing::Empty => ", empty if missing",
        };
        let source = self.base.join(&self.below);
        write!(f, "show {} at {}, {access}{missing}", source.display(), self.target.display())
    }
}
