//! Settings: from environment variables to types that cannot hold a bad value.
//!
//! The names and defaults are the provisioner contract's. A wrong value stops the start, and all of them
//! are named at once. Nothing here touches the machine: variables come from a function.

mod embedded;
pub(crate) mod env_file;
mod kubernetes;
mod place;
mod reader;
mod server;
mod storage;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use stockade_embedded::EmbeddedSettings;
use stockade_kubernetes::KubernetesSettings;
use stockade_server::ServerSettings;

pub(crate) use self::kubernetes::DEFAULT_KUBECONFIG;
pub(crate) use self::place::{VARIABLE as STATE_DIR_VARIABLE, state_dir};
use self::reader::Reader;
pub(crate) use self::reader::{SettingsError, Surroundings};
use crate::cli::BackendKind;

/// Where the API of `serve` listens unless told otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT);
/// Where the API of `up` listens unless told otherwise: this machine only.
pub(crate) const DEFAULT_LISTEN_UP: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
const DEFAULT_PORT: u16 = 8002;
const DEFAULT_CONTAINER_PORT: u16 = 8080;
/// Seconds a sandbox may take to end. Zero would be a forced delete, after which two Pods could write one
/// directory; a create waits 25 s for the one before, so more than that delays the next create.
const DELETE_GRACE: u64 = 5;

/// Which command reads the settings; their defaults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Start {
    /// A server as part of a deployment, on Kubernetes unless told otherwise.
    #[default]
    Serve,
    /// A server for this machine: embedded, on loopback, with a key of its own unless told otherwise.
    Up,
}

/// What the command line says instead of a variable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) start: Start,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) backend: Option<BackendKind>,
    pub(crate) state_dir: Option<PathBuf>,
}

/// Everything the server is told at start. Holds no secret of its own: of the API key only its hash is kept.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Who may call, and under which names.
    pub(crate) server: ServerSettings,
    /// Where and how sandboxes run.
    pub(crate) backend: BackendSettings,
    /// Where everything lies that outlives the server; `None` for one that keeps nothing.
    pub(crate) state_dir: Option<PathBuf>,
    /// Why this mount contract is served.
    pub(crate) contract_reason: String,
    /// What is likely not meant so, though nothing is wrong with it.
    pub(crate) warnings: Vec<String>,
}

/// Where and how sandboxes run. There is no way from one to the other: a lost kubeconfig must not put sandboxes
/// on the server's own machine.
#[derive(Debug)]
pub(crate) enum BackendSettings {
    /// As Pods of a cluster.
    Kubernetes(Box<KubernetesSettings>),
    /// On this machine.
    Embedded(Box<EmbeddedSettings>),
}

impl Settings {
    /// Reads all variables.
    ///
    /// # Errors
    /// Every value that is wrong.
    pub(crate) fn load(surroundings: &Surroundings<'_>, overrides: Overrides) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(surroundings);
        let mut warnings = Vec::new();
        let start = overrides.start;
        let kind = read_backend(&mut reader, &overrides);
        let listen = reader.parse("STOCKADE_LISTEN", |text| {
            text.parse().map_err(|_| "must be an address and a port, like 0.0.0.0:8002 or [::]:8002")
        });
        let keeps_state = kind == BackendKind::Embedded || start == Start::Up;
        let state_dir = keeps_state.then(|| place::read(&mut reader, overrides.state_dir));
        let own_base = (kind == BackendKind::Embedded)
            .then(|| state_dir.as_deref().and_then(|dir| place::own_base(&mut reader, dir)))
            .flatten();
        let mut storage = storage::read(&mut reader, own_base);
        warnings.append(&mut storage.warnings);
        let delete_grace = read_delete_grace(&mut reader);
        warn_of_foreign(&mut reader, kind, &mut warnings);
        let (backend, node_host) = match kind {
            BackendKind::Kubernetes => {
                let settings = kubernetes::read(&mut reader, storage.layout, delete_grace, &mut warnings);
                let node_host = settings.node_host.clone();
                (BackendSettings::Kubernetes(Box::new(settings)), node_host)
            }
            BackendKind::Embedded => {
                let place = embedded::Place {
                    state_dir: state_dir.clone().unwrap_or_default(),
                    storage: storage.layout,
                    own_base: storage.is_own_base,
                    delete_grace,
                };
                let settings = embedded::read(&mut reader, place);
                let node_host = settings.node_host.clone();
                (BackendSettings::Embedded(Box::new(settings)), node_host)
            }
        };
        let server = server::read(&mut reader, start, &node_host, &mut warnings);
        let default_listen = if start == Start::Up { DEFAULT_LISTEN_UP } else { DEFAULT_LISTEN };
        reader.finish(Self {
            listen: overrides.listen.or(listen).unwrap_or(default_listen),
            server,
            backend,
            state_dir,
            contract_reason: storage.reason,
            warnings,
        })
    }
}

fn read_backend(reader: &mut Reader<'_>, overrides: &Overrides) -> BackendKind {
    let variable = reader.parse("STOCKADE_BACKEND", |text| match text {
        "kubernetes" => Ok(BackendKind::Kubernetes),
        "embedded" => Ok(BackendKind::Embedded),
        _ => Err("must be kubernetes or embedded"),
    });
    let default = match overrides.start {
        Start::Serve => BackendKind::Kubernetes,
        Start::Up => BackendKind::Embedded,
    };
    overrides.backend.or(variable).unwrap_or(default)
}

/// What is set for the other backend. Nothing is silently without effect.
fn warn_of_foreign(reader: &mut Reader<'_>, kind: BackendKind, warnings: &mut Vec<String>) {
    if kind == BackendKind::Embedded {
        let foreign = kubernetes::ONLY.iter().filter(|(variable, _)| reader.is_set(variable));
        warnings.extend(foreign.map(|(variable, instead)| {
            format!("{variable} has no effect with the embedded backend: {instead}")
        }));
        return;
    }
    let foreign = embedded::ONLY.iter().filter(|variable| reader.is_set(variable));
    warnings.extend(foreign.map(|variable| {
        format!("{variable} has no effect with the Kubernetes backend; the embedded one has it")
    }));
    for variable in embedded::BOUNDS {
        if let Some(value) = reader.text(variable) {
            let expected = "bounds sandboxes of the embedded backend only; unset it, or the sandboxes would be \
                            taken for bounded";
            reader.problem(variable, &value, expected);
        }
    }
}

fn read_delete_grace(reader: &mut Reader<'_>) -> Duration {
    let grace = reader.parse("SANDBOX_DELETE_GRACE_SECONDS", |text| {
        let seconds = text.parse().ok().filter(|seconds| (1..=300).contains(seconds));
        seconds.ok_or("must be a number of seconds from 1 to 300")
    });
    Duration::from_secs(grace.unwrap_or(DELETE_GRACE))
}

/// Where the sandbox agent listens.
fn container_port(reader: &mut Reader<'_>) -> u16 {
    reader.parse("SANDBOX_CONTAINER_PORT", values::port).unwrap_or(DEFAULT_CONTAINER_PORT)
}

#[cfg(test)]
mod embedded_tests;
#[cfg(test)]
mod tests;
