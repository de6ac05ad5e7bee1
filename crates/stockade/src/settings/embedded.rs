//! The variables of the embedded backend.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade_core::egress::NetworkMode;
use stockade_core::layout::StorageLayout;
use stockade_core::resources::{Bytes, Resources};
use stockade_embedded::EmbeddedSettings;
use stockade_embedded::launch::spec::SHARED_MEMORY;
use stockade_embedded::settings::{
    DEFAULT_BIND, DEFAULT_LOG_BYTES, DEFAULT_STANDBY, DefaultLimits, MissingLimits, MissingViews, PortRange,
    RestartLimit, WritableKind, default_max_sandboxes, default_node_host,
};

use super::env_file;
use super::reader::Reader;
use super::values;

/// Variables that keep a sandbox within bounds here and have no effect on Kubernetes: there, setting one is an
/// error, since nobody should take a sandbox for bounded that is not.
pub(super) const BOUNDS: [&str; 5] = [
    "SANDBOX_NETWORK",
    "SANDBOX_CPU_LIMIT",
    "SANDBOX_MEMORY_LIMIT",
    "SANDBOX_STORAGE_LIMIT",
    "SANDBOX_PIDS_LIMIT",
];

/// The other variables that say something to this backend alone.
pub(super) const ONLY: [&str; 12] = [
    "SANDBOX_LIMITS",
    "SANDBOX_BIND",
    "SANDBOX_PORT_RANGE",
    "SANDBOX_SUBNET",
    "SANDBOX_WRITABLE",
    "SANDBOX_ENV_FILE",
    "SANDBOX_MAX",
    "SANDBOX_STANDBY",
    "SANDBOX_SHM_SIZE",
    "SANDBOX_RESTARTS",
    "SANDBOX_LOG_BYTES",
    "STOCKADE_AGENT",
];

/// The fewest processes: the agent's threads and one command.
const FEWEST_PIDS: u32 = 16;

/// What is known about where files lie before the variables of this backend are read.
pub(super) struct Place {
    pub(super) state_dir: PathBuf,
    pub(super) storage: StorageLayout,
    /// Nobody configured a base directory: it is our own, below the state directory.
    pub(super) own_base: bool,
    pub(super) delete_grace: Duration,
}

/// Reads them.
pub(super) fn read(reader: &mut Reader<'_>, place: Place) -> EmbeddedSettings {
    let limits = read_limits(reader);
    let restarts = reader.parse("SANDBOX_RESTARTS", |text| number(text, 0, 100));
    let bind = reader.parse("SANDBOX_BIND", address).unwrap_or(DEFAULT_BIND);
    let ports = reader.parse("SANDBOX_PORT_RANGE", str::parse).unwrap_or(PortRange::DEFAULT);
    let subnet = reader.parse("SANDBOX_SUBNET", str::parse);
    let settings = EmbeddedSettings {
        state_dir: place.state_dir,
        bind,
        ports,
        node_host: reader.parse("NODE_HOST", values::url_host).unwrap_or_else(|| default_node_host(bind)),
        container_port: super::container_port(reader),
        storage: place.storage,
        missing_views: if place.own_base { MissingViews::Create } else { MissingViews::Empty },
        environment: read_environment(reader),
        limits,
        missing_limits: reader.parse("SANDBOX_LIMITS", missing_limits).unwrap_or(MissingLimits::Refuse),
        network: reader.parse("SANDBOX_NETWORK", network),
        subnet,
        writable: reader.parse("SANDBOX_WRITABLE", writable).unwrap_or(WritableKind::Disk),
        delete_grace: place.delete_grace,
        max_sandboxes: reader
            .parse("SANDBOX_MAX", |text| number(text, 1, 60_000))
            .unwrap_or_else(|| default_max_sandboxes(ports, subnet)),
        standby: reader.parse("SANDBOX_STANDBY", |text| number(text, 0, 64)).unwrap_or(DEFAULT_STANDBY),
        shared_memory: reader
            .parse("SANDBOX_SHM_SIZE", |text| quantity::<Bytes>(text, Bytes(4096)))
            .unwrap_or(Bytes(SHARED_MEMORY)),
        restarts: RestartLimit {
            most: restarts.unwrap_or(RestartLimit::DEFAULT.most),
            ..RestartLimit::DEFAULT
        },
        log_bytes: reader
            .parse("SANDBOX_LOG_BYTES", |text| quantity::<Bytes>(text, Bytes(4096)))
            .map_or(DEFAULT_LOG_BYTES, |bytes| bytes.0),
        agent: reader.parse("STOCKADE_AGENT", absolute_path),
    };
    for problem in settings.problems() {
        // Values that are wrong by themselves were replaced by good ones and are named already.
        if !problem.beside.iter().any(|variable| reader.has_problem(variable)) {
            reader.problem(problem.variable, &problem.found, problem.expected);
        }
    }
    settings
}

fn read_limits(reader: &mut Reader<'_>) -> DefaultLimits {
    let default = DefaultLimits::DEFAULT;
    DefaultLimits {
        cpu: reader.parse("SANDBOX_CPU_LIMIT", str::parse).unwrap_or(default.cpu),
        memory: reader
            .parse("SANDBOX_MEMORY_LIMIT", |text| quantity(text, Resources::LEAST_MEMORY))
            .unwrap_or(default.memory),
        storage: reader
            .parse("SANDBOX_STORAGE_LIMIT", |text| quantity(text, Resources::LEAST_STORAGE))
            .unwrap_or(default.storage),
        pids: reader
            .parse("SANDBOX_PIDS_LIMIT", |text| number(text, FEWEST_PIDS, 1 << 20))
            .unwrap_or(default.pids),
    }
}

fn read_environment(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let Some(path) = reader.parse("SANDBOX_ENV_FILE", absolute_path) else { return BTreeMap::new() };
    let shown = path.display().to_string();
    match reader
        .file(&path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|text| env_file::parse(&text))
    {
        Ok(variables) => variables,
        Err(expected) => {
            reader.problem("SANDBOX_ENV_FILE", &shown, expected);
            BTreeMap::new()
        }
    }
}

fn quantity<T: std::str::FromStr<Err: Display> + PartialOrd + Display>(
    text: &str,
    least: T,
) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(amount) if amount < least => Err(format!("must be at least {least}")),
        Ok(amount) => Ok(amount),
        Err(error) => Err(error.to_string()),
    }
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

/// An address, IPv6 with or without the brackets it has in URLs.
fn address(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => text.parse(),
    };
    address.map_err(|_| "must be an IP address of this machine, like 127.0.0.1 or 0.0.0.0")
}

fn network(text: &str) -> Result<NetworkMode, &'static str> {
    match NetworkMode::from_name(text) {
        Some(mode @ (NetworkMode::Isolated | NetworkMode::Open)) => Ok(mode),
        Some(NetworkMode::Allowlist) => Err("is not built yet as a default; must be isolated or open"),
        None => Err("must be isolated (its own loopback only) or open (the internet, no private addresses)"),
    }
}

fn missing_limits(text: &str) -> Result<MissingLimits, &'static str> {
    match text {
        "required" => Ok(MissingLimits::Refuse),
        "where-possible" => Ok(MissingLimits::Accept),
        _ => Err(
            "must be required (a request whose limits cannot be applied is refused) or where-possible (it is taken, and \
             the answer says which do not hold)",
        ),
    }
}

fn writable(text: &str) -> Result<WritableKind, &'static str> {
    match text {
        "disk" => Ok(WritableKind::Disk),
        "tmpfs" => Ok(WritableKind::Tmpfs),
        _ => Err(
            "must be disk (in the state directory) or tmpfs (in memory, lost with the sandbox's processes)",
        ),
    }
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err("must be an absolute path") }
}
