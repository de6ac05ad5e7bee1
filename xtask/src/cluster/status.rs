//! `status`: what runs, and whether it is well.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::api::Api;
use super::components::Component;
use super::layout::Layout;
use super::record::Record;
use super::start;

/// The answer of `cargo xtask cluster status --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The cluster's name.
    pub name: String,
    /// Whether its namespaces are there. Single components may be down; see `health`.
    pub running: bool,
    /// Whether every component is well.
    pub healthy: bool,
    /// Without scheduler, node, proxy and DNS.
    pub control_plane_only: bool,
    /// The administrator's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The network namespace, for `nsenter --net=`.
    pub netns: Option<PathBuf>,
    /// The mount namespace, for `nsenter --mount=`: where the kubelet resolves hostPath volumes.
    pub mntns: Option<PathBuf>,
    /// The node's address, on the host and inside.
    pub node_address: Option<Ipv4Addr>,
    /// The host's address as seen from inside.
    pub host_address: Option<Ipv4Addr>,
    /// Where NodePorts answer; inside, 127.0.0.1 does too.
    pub node_port_host: Option<String>,
    /// The directory of this cluster's files.
    pub state_dir: PathBuf,
    /// Process ids as seen from the host.
    pub pids: BTreeMap<String, i32>,
    /// Every component that the cluster should have.
    pub health: BTreeMap<&'static str, Health>,
}

/// How one component is.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Whether its own check says so.
    pub healthy: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

/// Looks at a cluster; one that does not run is an answer, not an error.
///
/// # Errors
/// When the name does not fit, or the record cannot be read.
pub fn status(name: &str) -> Result<Status> {
    let layout = Layout::new(name)?;
    let mut status = Status {
        name: name.to_owned(),
        running: false,
        healthy: false,
        control_plane_only: false,
        kubeconfig: None,
        netns: None,
        mntns: None,
        node_address: None,
        host_address: None,
        node_port_host: None,
        state_dir: layout.state().to_path_buf(),
        pids: BTreeMap::new(),
        health: BTreeMap::new(),
    };
    let Some(record) = Record::load(&layout)?.filter(|record| record.holder.is_usable()) else {
        return Ok(status);
    };
    status.running = true;
    status.control_plane_only = record.control_plane_only;
    status.kubeconfig = Some(layout.kubeconfig());
    status.netns = Some(record.holder.netns());
    status.mntns = Some(record.holder.namespace("mnt"));
    status.node_address = Some(record.pair.node);
    status.host_address = Some(record.pair.host);
    status.node_port_host = Some(record.pair.node.to_string());
    status.pids.insert("holder".to_owned(), record.holder.identity.pid);
    let api = Api::new(&layout, record.pair.node)?;
    for component in Component::of_cluster(record.control_plane_only) {
        let looked = match record.running(*component) {
            Some(identity) => {
                status.pids.insert(component.name().to_owned(), identity.pid);
                start::look(&api, &record.holder, &component.check(record.pair.node))
            }
            None if record.components.contains_key(component) => Err("it has ended".to_owned()),
            None => Err("it was stopped or never started".to_owned()),
        };
        let health =
            Health { healthy: looked.is_ok(), reason: looked.err(), log: layout.log(component.name()) };
        status.health.insert(component.name(), health);
    }
    status.healthy = status.health.values().all(|health| health.healthy);
    Ok(status)
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.running {
            return write!(f, "cluster {}: not running", self.name);
        }
        let extent = if self.control_plane_only { "control plane only" } else { "with a node" };
        writeln!(f, "cluster {}: running, {extent}", self.name)?;
        for (component, health) in &self.health {
            let pid = self.pids.get(*component).map_or_else(|| "-".to_owned(), i32::to_string);
            let word = if health.healthy { "well" } else { "NOT WELL" };
            writeln!(f, "  {component:<20} {pid:>8}  {word}")?;
            if let Some(reason) = &health.reason {
                writeln!(f, "  {:<20} {reason} (log: {})", "", health.log.display())?;
            }
        }
        if let (Some(kubeconfig), Some(netns)) = (&self.kubeconfig, &self.netns) {
            writeln!(f, "  kubeconfig  {}", kubeconfig.display())?;
            writeln!(f, "  NodePorts   {}", self.node_port_host.as_deref().unwrap_or("-"))?;
            write!(f, "  inside      nsenter --net={}", netns.display())?;
        }
        Ok(())
    }
}
