//! What the embedded backend is told at start.

mod ranges;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

pub use ranges::{PortRange, Subnet};
use stockade_core::egress::NetworkMode;
use stockade_core::layout::{Skills, StorageLayout, UserData};
use stockade_core::path::HostPath;
use stockade_core::resources::{Bytes, Millicores};
use thiserror::Error;

/// Settings of the backend. The environment variable behind each is named; the binary reads them.
#[derive(Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// `--state-dir`: where everything that must outlive the server lies. One server at a time.
    pub state_dir: PathBuf,
    /// `SANDBOX_BIND`: the address the ports of sandboxes are opened on.
    pub bind: IpAddr,
    /// `SANDBOX_PORT_RANGE`: which ports sandboxes get.
    pub ports: PortRange,
    /// `NODE_HOST`: the host name or address in URLs, IPv6 already in brackets.
    pub node_host: String,
    /// `SANDBOX_CONTAINER_PORT`: where the sandbox agent listens in its own network.
    pub container_port: u16,
    /// Where files lie: the same variables as on Kubernetes.
    pub storage: StorageLayout,
    /// What becomes of skill views that are not there.
    pub missing_views: MissingViews,
    /// `SANDBOX_ENV_FILE`: variables every sandbox gets; those of a request win. May hold secrets.
    pub environment: BTreeMap<String, String>,
    /// The limits of sandboxes whose request names none.
    pub limits: DefaultLimits,
    /// `SANDBOX_LIMITS`: what becomes of limits in a request that this machine cannot apply.
    pub missing_limits: MissingLimits,
    /// `SANDBOX_NETWORK`: what a sandbox reaches whose request does not say; `None`: open where the machine lets
    /// us, else isolated.
    pub network: Option<NetworkMode>,
    /// `SANDBOX_SUBNET`: the addresses of sandboxes in open networks; `None` leaves the choice to the backend.
    pub subnet: Option<Subnet>,
    /// `SANDBOX_WRITABLE`: where what sandboxes write outside their mounts goes.
    pub writable: WritableKind,
    /// `SANDBOX_DELETE_GRACE_SECONDS`: how long a sandbox may take to end.
    pub delete_grace: Duration,
    /// `SANDBOX_MAX`: how many sandboxes there may be.
    pub max_sandboxes: u32,
    /// `SANDBOX_STANDBY`: how many sandboxes are prepared ahead.
    pub standby: u32,
    /// `SANDBOX_SHM_SIZE`: what `/dev/shm` may hold; it counts as memory.
    pub shared_memory: Bytes,
    /// How often a sandbox whose processes end badly is started again.
    pub restarts: RestartLimit,
    /// `SANDBOX_LOG_BYTES`: the most that is kept of what the main process of one sandbox writes; once more as
    /// much of the time before the last restart.
    pub log_bytes: u64,
    /// `STOCKADE_AGENT`: the executable that runs inside; `None`: the one beside ours, or ourselves.
    pub agent: Option<PathBuf>,
}

impl fmt::Debug for EmbeddedSettings {
    /// Without the environment's values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedSettings")
            .field("state_dir", &self.state_dir)
            .field("bind", &self.bind)
            .field("ports", &self.ports)
            .field("node_host", &self.node_host)
            .field("storage", &self.storage)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("limits", &self.limits)
            .field("network", &self.network)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// What becomes of skill views that are not there when a sandbox is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingViews {
    /// They are made: the base directory is our own.
    Create,
    /// An empty read-only directory takes their place, and the answer says so: somebody else fills the base.
    Empty,
}

/// Where what sandboxes write outside their mounts goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritableKind {
    /// Into the state directory. It survives a restart of the sandbox and of the machine.
    Disk,
    /// Into memory, where the limit is hard. It ends with the sandbox's processes.
    Tmpfs,
}

/// What becomes of limits that a request asks for and that the machine cannot apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingLimits {
    /// The request is refused.
    Refuse,
    /// The sandbox is made without them, and the answer says so.
    Accept,
}

/// The limits of a sandbox whose request names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultLimits {
    /// `SANDBOX_CPU_LIMIT`.
    pub cpu: Millicores,
    /// `SANDBOX_MEMORY_LIMIT`.
    pub memory: Bytes,
    /// `SANDBOX_STORAGE_LIMIT`: files outside the mounts.
    pub storage: Bytes,
    /// `SANDBOX_PIDS_LIMIT`: processes and threads together. A request cannot change it.
    pub pids: u32,
}

impl DefaultLimits {
    /// What DeerFlow gives its containers: two processors, 2 GiB, 512 processes; and 4 GiB of files.
    pub const DEFAULT: Self =
        Self { cpu: Millicores(2000), memory: Bytes(2 << 30), storage: Bytes(4 << 30), pids: 512 };
}

/// How often something is started again before it counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    /// `SANDBOX_RESTARTS`: how many times within the window.
    pub most: u32,
    /// The window.
    pub within: Duration,
}

impl RestartLimit {
    /// Five times in ten minutes.
    pub const DEFAULT: Self = Self { most: 5, within: Duration::from_secs(600) };
}

/// The address of sandboxes unless told otherwise: nobody else reaches them.
pub const DEFAULT_BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How many sandboxes there may be unless told otherwise.
pub const DEFAULT_MAX_SANDBOXES: u32 = 1000;
/// How many sandboxes are prepared ahead unless told otherwise: as many as a few agents ask for in one breath. Each
/// takes about two megabytes of memory.
pub const DEFAULT_STANDBY: u32 = 4;
/// How much of a log is kept unless told otherwise.
pub const DEFAULT_LOG_BYTES: u64 = 1 << 20;

/// A setting that stops the start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable} is {found:?}: {expected}")]
pub struct SettingsProblem {
    /// The variable.
    pub variable: &'static str,
    /// Its value.
    pub found: String,
    /// What would be right.
    pub expected: String,
    /// Other variables that are part of it: when one of them is wrong by itself, this says nothing.
    pub beside: &'static [&'static str],
}

impl SettingsProblem {
    pub(crate) fn new(variable: &'static str, found: &str, expected: &str) -> Self {
        Self { variable, found: found.to_owned(), expected: expected.to_owned(), beside: &[] }
    }
}

impl EmbeddedSettings {
    /// Everything that is wrong with how the settings go together.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingsProblem> {
        let mut problems = Vec::new();
        problems.extend(self.host_problem());
        problems.extend(self.room_problems());
        let mut problem = |variable, found: &str, expected: &str| {
            problems.push(SettingsProblem::new(variable, found, expected));
        };
        if let Skills::Claim { name, .. } = &self.storage.skills {
            problem("SKILLS_PVC_NAME", name, "there are no claims without Kubernetes: use SKILLS_HOST_PATH");
        }
        if let UserData::Claim(name) = &self.storage.user_data {
            let expected = "there are no claims without Kubernetes: use DEER_FLOW_HOST_BASE_DIR";
            problem("USERDATA_PVC_NAME", name, expected);
        }
        let mut directory = |variable, path: &HostPath| {
            if !path.as_str().starts_with('/') || path.as_str().contains('\\') {
                problem(variable, path.as_str(), "must be a directory of this machine, like /srv/deer-flow");
            }
        };
        directory("DEER_FLOW_HOST_BASE_DIR", &self.storage.base);
        if let Skills::Directory(path) = &self.storage.skills {
            directory("SKILLS_HOST_PATH", path);
        }
        if let UserData::Threads(path) = &self.storage.user_data {
            directory("THREADS_HOST_PATH", path);
        }
        if self.max_sandboxes > crate::backend::MAX_SANDBOXES {
            let expected = format!("must be at most {}", crate::backend::MAX_SANDBOXES);
            problem("SANDBOX_MAX", &self.max_sandboxes.to_string(), &expected);
        }
        problems
    }

    /// That there are as many sandboxes as there may be, what bounds them, and what to do about it.
    pub(crate) fn full(&self) -> String {
        let most = self.max_sandboxes;
        let there_are = match most {
            1 => "there is 1 sandbox already".to_owned(),
            most => format!("there are {most} sandboxes already"),
        };
        if let Some(subnet) = self.subnet.filter(|subnet| subnet.capacity() == most) {
            return format!(
                "{there_are}, and SANDBOX_SUBNET ({subnet}) has no address for another: of its {} addresses the network \
                 itself needs {}; delete some, or take a larger range",
                subnet.size(),
                Subnet::OWN
            );
        }
        if self.ports.count() == most {
            let ports = self.ports;
            return format!(
                "{there_are}, and SANDBOX_PORT_RANGE ({ports}) has no port for another; delete some, or take a larger \
                 range"
            );
        }
        format!("{there_are}, and SANDBOX_MAX allows no more; delete some, or set a larger number")
    }

    /// A host in URLs that leads to where no port of a sandbox is open.
    fn host_problem(&self) -> Option<SettingsProblem> {
        let host = &self.node_host;
        let expected = match (Host::of(host), self.bind) {
            (Host::Elsewhere, bind) if bind.is_loopback() => {
                "leads to another machine or container, but the ports of sandboxes are open on loopback only: \
                 set SANDBOX_BIND too, to the address that NODE_HOST leads to (or 0.0.0.0 for all; then everyone \
                 who reaches this machine reaches the sandboxes), or leave both unset"
                    .to_owned()
            }
            (Host::Elsewhere, _) => return None,
            (Host::Loopback(ip), bind) if bind == ip => return None,
            (Host::Loopback(ip), bind) if bind.is_unspecified() && bind.is_ipv4() == ip.is_ipv4() => return None,
            (Host::Localhost, bind) if bind.is_unspecified() => return None,
            (Host::Localhost, bind) if LOCALHOST.contains(&bind) => return None,
            (_, bind) => format!(
                "is not where the ports of sandboxes are open, which is {bind} (SANDBOX_BIND): leave NODE_HOST unset, \
                 or set SANDBOX_BIND to what it leads to"
            ),
        };
        Some(SettingsProblem {
            beside: &["SANDBOX_BIND"],
            ..SettingsProblem::new("NODE_HOST", host, &expected)
        })
    }

    /// Ranges that have less room than there may be sandboxes.
    fn room_problems(&self) -> Vec<SettingsProblem> {
        let most = self.max_sandboxes;
        let ports = ("SANDBOX_PORT_RANGE", self.ports.to_string(), self.ports.count(), "ports");
        let subnet = self.subnet.map(|subnet| {
            ("SANDBOX_SUBNET", subnet.to_string(), subnet.capacity(), "addresses for sandboxes")
        });
        if let Some(subnet) = self.subnet.filter(|subnet| subnet.capacity() == 0) {
            let expected = format!(
                "has {} addresses, and the network itself needs {}: take at least a /29, like {}/29",
                subnet.size(),
                Subnet::OWN,
                std::net::Ipv4Addr::from_bits(subnet.address().to_bits() & !7)
            );
            return vec![SettingsProblem::new("SANDBOX_SUBNET", &subnet.to_string(), &expected)];
        }
        let tight = [Some(ports), subnet].into_iter().flatten().filter(|(_, _, room, _)| *room < most);
        tight
            .map(|(variable, found, room, what)| {
                let expected = format!(
                    "has {room} {what}, and SANDBOX_MAX allows {most} sandboxes, which need one each: take a larger \
                     range, or lower SANDBOX_MAX"
                );
                SettingsProblem { beside: &["SANDBOX_MAX"], ..SettingsProblem::new(variable, &found, &expected) }
            })
            .collect()
    }
}

/// Where a host in a URL leads, on the machine it is read on.
enum Host {
    /// To this address, which is loopback.
    Loopback(IpAddr),
    /// To one of [`LOCALHOST`].
    Localhost,
    /// To another address or name, of this machine or not.
    Elsewhere,
}

/// What `localhost` may mean.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

impl Host {
    fn of(host: &str) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() => Self::Loopback(ip),
            Err(_) if host.eq_ignore_ascii_case("localhost") => Self::Localhost,
            _ => Self::Elsewhere,
        }
    }
}

/// The host in URLs unless told otherwise: where the ports are open.
#[must_use]
pub fn default_node_host(bind: IpAddr) -> String {
    match bind {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// How many sandboxes there may be unless told otherwise: [`DEFAULT_MAX_SANDBOXES`], or as many as the ranges that
/// were set have room for.
#[must_use]
pub fn default_max_sandboxes(ports: PortRange, subnet: Option<Subnet>) -> u32 {
    let addresses = subnet.map_or(u32::MAX, Subnet::capacity);
    DEFAULT_MAX_SANDBOXES.min(ports.count()).min(addresses).max(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use stockade_core::ContractVersion;

    use super::*;

    /// What `up` has when no variable is set, with everything below a directory.
    pub(crate) fn mk_settings(state_dir: &Path) -> EmbeddedSettings {
        let base = HostPath::new(state_dir.join("data").to_str().unwrap()).unwrap();
        EmbeddedSettings {
            state_dir: state_dir.to_owned(),
            bind: DEFAULT_BIND,
            ports: PortRange::DEFAULT,
            node_host: default_node_host(DEFAULT_BIND),
            container_port: 8080,
            storage: StorageLayout {
                extra_mount_base: Some(base.clone()),
                base,
                skills: Skills::Views,
                user_data: UserData::Base,
                contract: ContractVersion::V2,
            },
            missing_views: MissingViews::Create,
            environment: BTreeMap::new(),
            limits: DefaultLimits::DEFAULT,
            missing_limits: MissingLimits::Refuse,
            network: None,
            subnet: None,
            writable: WritableKind::Disk,
            delete_grace: Duration::from_secs(5),
            max_sandboxes: DEFAULT_MAX_SANDBOXES,
            standby: DEFAULT_STANDBY,
            shared_memory: Bytes(crate::launch::spec::SHARED_MEMORY),
            restarts: RestartLimit::DEFAULT,
            log_bytes: DEFAULT_LOG_BYTES,
            agent: None,
        }
    }

    #[test]
    fn urls_lead_to_where_ports_are_open() {
        for (bind, host, expect) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "LocalHost", true),
            ("::1", "localhost", true),
            ("::1", "[::1]", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "127.9.9.9", true),
            ("0.0.0.0", "localhost", true),
            ("0.0.0.0", "host.docker.internal", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "198.51.100.7", true),
            ("127.0.0.1", "host.docker.internal", false),
            ("127.0.0.1", "10.1.2.3", false),
            ("127.0.0.1", "[2001:db8::1]", false),
            ("127.0.0.1", "[::1]", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.2", "localhost", false),
            ("0.0.0.0", "[::1]", false),
            ("10.1.2.3", "127.0.0.1", false),
            ("10.1.2.3", "localhost", false),
        ] {
            let mut settings = mk_settings(Path::new("/s"));
            (settings.bind, settings.node_host) = (bind.parse().unwrap(), host.to_owned());
            let problems = settings.problems();
            assert_eq!(problems.is_empty(), expect, "{bind} {host}: {problems:?}");
            settings.node_host = default_node_host(settings.bind);
            assert_eq!(settings.problems(), [], "{bind}");
        }
    }

    #[test]
    fn ranges_have_room_for_as_many_sandboxes_as_there_may_be() {
        let check = |ports: &str, subnet: Option<&str>, most: Option<u32>| {
            let mut settings = mk_settings(Path::new("/s"));
            settings.ports = ports.parse().unwrap();
            settings.subnet = subnet.map(|subnet| subnet.parse().unwrap());
            settings.max_sandboxes = most.unwrap_or(default_max_sandboxes(settings.ports, settings.subnet));
            settings.problems().into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(check("20000-20009", None, None), "");
        assert_eq!(check("20000-29999", Some("10.9.0.0/24"), None), "");
        assert_eq!(check("20000-29999", Some("10.9.0.0/24"), Some(251)), "");
        let tight = check("20000-20009", Some("10.9.0.0/24"), Some(252));
        assert!(tight.contains("SANDBOX_PORT_RANGE is \"20000-20009\": has 10 ports"), "{tight}");
        assert!(tight.contains("SANDBOX_SUBNET is \"10.9.0.0/24\": has 251 addresses"), "{tight}");
        let none = check("20000-29999", Some("10.0.0.12/30"), None);
        assert!(none.contains("has 4 addresses") && none.contains("like 10.0.0.8/29"), "{none}");
        assert!(!none.contains("SANDBOX_MAX"), "nobody set that: {none}");
    }

    #[test]
    fn a_full_server_names_what_bounds_it() {
        let full = |ports: &str, subnet: Option<&str>, most: Option<u32>| {
            let mut settings = mk_settings(Path::new("/s"));
            settings.ports = ports.parse().unwrap();
            settings.subnet = subnet.map(|subnet| subnet.parse().unwrap());
            settings.max_sandboxes = most.unwrap_or(default_max_sandboxes(settings.ports, settings.subnet));
            settings.full()
        };
        let of_subnet = full("20000-29999", Some("10.9.0.0/29"), None);
        assert!(
            of_subnet.starts_with("there are 3 sandboxes already, and SANDBOX_SUBNET (10.9.0.0/29)"),
            "{of_subnet}"
        );
        assert!(of_subnet.contains("of its 8 addresses the network itself needs 5"), "{of_subnet}");
        let of_ports = full("20000-20000", None, None);
        assert!(
            of_ports.starts_with("there is 1 sandbox already, and SANDBOX_PORT_RANGE (20000-20000)"),
            "{of_ports}"
        );
        for (subnet, most) in [(None, None), (Some("10.9.0.0/24"), Some(7))] {
            let of_number = full("20000-29999", subnet, most);
            assert!(of_number.contains("SANDBOX_MAX") && !of_number.contains("range"), "{of_number}");
        }
    }
}
