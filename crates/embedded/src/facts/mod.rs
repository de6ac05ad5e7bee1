//! What this machine lets us do, found out by doing it.
//!
//! A version number says little: distributions add and take away, containers forbid. So a child process
//! tries, in namespaces that end with it, and says how far it got.

mod arrangement;
mod findings;
mod idmap;
mod net;
mod trial;

use serde::{Deserialize, Serialize};

pub use arrangement::findings_about;
pub(crate) use arrangement::open_to_others;
pub use findings::{Finding, Level};
pub use idmap::idmapping_works_at;

use crate::cgroup::CgroupLayout;

/// What this machine can give. The default is a machine that can give nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineFacts {
    /// Every sandbox can have users of its own and a network of the machine's: we are root, and not in a
    /// container that took that away. Otherwise a sandbox's one user is ours.
    pub privileged: bool,
    /// The kernel's release.
    pub kernel: String,
    /// All namespaces of a sandbox can be made; else why not, as an error number of the kernel.
    pub namespaces: Result<(), i32>,
    /// A new `/proc` can be mounted in them. Without it there is no sandbox.
    pub fresh_proc: bool,
    /// Private file systems can be mounted in them. Without it there is no sandbox.
    pub mounts: bool,
    /// The machine's directories can be covered by a writable layer. Without it there is no sandbox.
    pub overlay: bool,
    /// The machine's directories can be covered by a writable layer with other owners than their files have; asked of
    /// the root file system. [`idmapping_works_at`] asks others, about mounts without layers.
    pub idmapped_layers: bool,
    /// File systems in memory can be mounted with other owners too, as since Linux 6.3.
    pub idmapped_memory: bool,
    /// Where control groups can be made.
    pub cgroups: CgroupLayout,
    /// What the kernel's Landlock can do, by its own count; 0 when there is none.
    pub landlock_abi: u32,
    /// System calls can be filtered.
    pub seccomp: bool,
    /// What can be done with networks.
    pub net: NetFacts,
}

/// What can be done with networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetFacts {
    /// We may change the machine's own network: interfaces, addresses, rules.
    pub admin: bool,
    /// Pairs of connected interfaces can be made.
    pub veth: bool,
    /// The kernel has the packet filter nf_tables.
    pub nf_tables: bool,
}

impl Default for MachineFacts {
    fn default() -> Self {
        Self {
            privileged: false,
            kernel: String::new(),
            namespaces: Err(libc::ENOSYS),
            fresh_proc: false,
            mounts: false,
            overlay: false,
            idmapped_layers: false,
            idmapped_memory: false,
            cgroups: CgroupLayout::default(),
            landlock_abi: 0,
            seccomp: false,
            net: NetFacts::default(),
        }
    }
}

impl MachineFacts {
    /// Tries everything. Takes a few milliseconds, changes nothing, leaves nothing behind. May be called with
    /// threads running.
    #[must_use]
    pub fn probe() -> Self {
        let trial = trial::run();
        let ours = OwnRights::read();
        let privileged = trial.user_ranges && ours.has(Capability::SysAdmin);
        Self {
            privileged,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            namespaces: trial.namespaces,
            fresh_proc: trial.reached.fresh_proc,
            mounts: trial.reached.mounts,
            overlay: trial.reached.overlay,
            idmapped_layers: trial.reached.idmapped_layers,
            idmapped_memory: trial.reached.idmapped_memory,
            cgroups: CgroupLayout::find(),
            landlock_abi: crate::confine::landlock::abi(),
            seccomp: crate::confine::seccomp::is_available(),
            net: NetFacts {
                admin: privileged && ours.has(Capability::NetAdmin),
                veth: trial.reached.veth,
                nf_tables: trial.reached.nf_tables,
            },
        }
    }

    /// Whether sandboxes can be made here at all.
    #[must_use]
    pub fn can_isolate(&self) -> bool {
        self.namespaces.is_ok() && self.fresh_proc && self.mounts && self.overlay && self.seccomp
    }

    /// Whether the kernel counts processes of a user apart in each user namespace, as Linux does since 5.14.
    #[must_use]
    pub fn counts_processes_apart(&self) -> bool {
        let mut numbers =
            self.kernel.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5_u32, 14_u32)
    }

    /// Whether sandboxes can have a way to the outside.
    #[must_use]
    pub fn can_open_network(&self) -> bool {
        self.net.admin && self.net.veth && self.net.nf_tables
    }
}

#[derive(Clone, Copy)]
enum Capability {
    NetAdmin = 12,
    SysAdmin = 21,
}

/// The rights this process has now.
struct OwnRights(u64);

impl OwnRights {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(&self, capability: Capability) -> bool {
        self.0 & (1 << capability as u64) != 0
    }
}
