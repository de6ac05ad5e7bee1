//! A real Kubernetes cluster for tests, without images, registries or downloaded programs.
//!
//! `up` builds the programs (once), makes network, mount and process namespaces, lays a cable
//! between them and the host, and starts the components inside:
//!
//! ```text
//!   host ── skdXXXXXXXX ═══ eth0 ── namespaces of the cluster
//!           198.18.a.b      198.18.a.b+1     etcd, apiserver, controller-manager, scheduler,
//!                                            containerd (Pods), kubelet, kube-proxy, CoreDNS
//! ```
//!
//! Everything inside ends with one process, the holder; see [`namespace`]. `e2e/cluster/README.md`
//! tells a person the same, and what bites.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

pub mod api;
pub mod build;
pub mod cgroups;
pub mod cli;
pub mod components;
pub mod dns;
pub mod layout;
pub mod namespace;
pub mod network;
pub mod node;
pub mod packages;
pub mod pki;
pub mod pretend;
pub mod processes;
pub mod record;
mod start;
mod status;
mod stop;

pub use start::{load_images, start_component, up};
pub use status::{Health, Status, status};
pub use stop::{down, kill_component, stop_component};

/// The name of a cluster that was not given one.
pub const DEFAULT_NAME: &str = "default";

/// Which cluster, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Several clusters live side by side by their names.
    pub name: String,
    /// Only etcd, API server and controllers: ready in seconds, runs no Pods.
    pub control_plane_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: DEFAULT_NAME.to_owned(), control_plane_only: false }
    }
}

/// How to reach a cluster: one of ours, or one that was there before.
#[derive(Debug, Clone, Serialize)]
pub struct Handle {
    /// `None` for a cluster that is not ours.
    pub name: Option<String>,
    /// Runs no Pods.
    pub control_plane_only: bool,
    /// The administrator's; its server address works on the host and in the cluster's namespace.
    pub kubeconfig: PathBuf,
    /// For `nsenter --net=`; `None` for a cluster that is not ours.
    pub netns: Option<PathBuf>,
    /// The node's address, on the host and inside.
    pub node_address: Option<Ipv4Addr>,
    /// The host's address as seen from inside: where Pods reach a server that listens on the host.
    pub host_address: Option<Ipv4Addr>,
    /// Where NodePorts answer. In the cluster's namespace 127.0.0.1 does too.
    pub node_port_host: Option<String>,
    /// The directory of this cluster's files.
    pub state_dir: Option<PathBuf>,
    /// The built `kubectl`.
    pub kubectl: Option<PathBuf>,
}

/// A cluster that somebody else made (kind, k3s, minikube, a cloud).
///
/// # Errors
/// When the kubeconfig cannot be read.
pub fn existing(kubeconfig: &Path) -> Result<Handle> {
    std::fs::File::open(kubeconfig)
        .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
    Ok(Handle {
        name: None,
        control_plane_only: false,
        kubeconfig: kubeconfig.to_path_buf(),
        netns: None,
        node_address: None,
        host_address: None,
        node_port_host: None,
        state_dir: None,
        kubectl: crate::run::find_program("kubectl"),
    })
}

impl Handle {
    fn new(layout: &layout::Layout, record: &record::Record, binaries: &build::Binaries) -> Self {
        Self {
            name: Some(layout.name().to_owned()),
            control_plane_only: record.control_plane_only,
            kubeconfig: layout.kubeconfig(),
            netns: Some(record.holder.netns()),
            node_address: Some(record.pair.node),
            host_address: Some(record.pair.host),
            node_port_host: Some(record.pair.node.to_string()),
            state_dir: Some(layout.state().to_path_buf()),
            kubectl: Some(binaries.path("kubectl")),
        }
    }

    /// A command that runs in the cluster's network namespace, where NodePorts answer on 127.0.0.1
    /// and Pods and Services on their own addresses. For a cluster that is not ours: right here.
    #[must_use]
    pub fn command(&self, program: &std::ffi::OsStr) -> std::process::Command {
        let mut command = match &self.netns {
            Some(netns) => {
                let mut command = std::process::Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg("--").arg(program);
                command
            }
            None => std::process::Command::new(program),
        };
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}

/// Held while a command changes a cluster: two `up` at once would each undo the other's work.
fn lock(layout: &layout::Layout) -> Result<std::fs::File> {
    use crate::wait::{Outcome, until};
    use std::time::Duration;

    let path = layout.lock();
    let parent = path.parent().context("the lock file has no directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = std::fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    // As long as a cold build may take in the other one.
    let locked = until(Duration::from_secs(1800), Duration::from_millis(100), || {
        Ok(rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| error.to_string()))
    })?;
    match locked {
        Outcome::Ready(()) => Ok(file),
        Outcome::TimedOut(error) => {
            anyhow::bail!("another command works on this cluster (lock {}): {error}", path.display())
        }
    }
}

fn require_root(what: &str) -> Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "{what} needs root, for namespaces and a container runtime; run it with sudo, or use a cluster that is there already"
    );
    Ok(())
}
