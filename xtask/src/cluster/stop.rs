//! `down`, and the faults that tests make: a component killed or stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::components::Component;
use super::layout::Layout;
use super::namespace::{self, Holder};
use super::record::Record;
use super::{cgroups, network, processes};
use crate::wait::{Outcome, until};

/// Ends a cluster and removes everything of it; fine when there is none.
///
/// # Errors
/// When something is left; the message names it.
pub fn down(name: &str) -> Result<()> {
    let layout = Layout::new(name)?;
    if !layout.state().exists() && holders(&layout)?.is_empty() {
        return Ok(());
    }
    super::require_root("cargo xtask cluster down")?;
    let _lock = super::lock(&layout)?;
    remove(&layout)
}

/// Ends and removes what there is of a cluster: a whole one or what a killed run left.
pub(super) fn remove(layout: &Layout) -> Result<()> {
    let namespaces = network_namespaces(layout)?;
    for holder in holders(layout)? {
        holder.end()?;
    }
    network::disconnect(layout)?;
    cgroups::remove(layout)?;
    remove_state(layout.state())?;
    namespace::remove_mount_points()?;
    let left = leftovers(layout, &namespaces)?;
    if !left.is_empty() {
        bail!("the cluster {} has ended, but this is left of it:\n  {}", layout.name(), left.join("\n  "));
    }
    Ok(())
}

fn holders(layout: &Layout) -> Result<Vec<Holder>> {
    let mut holders = namespace::find_holders(layout)?;
    if let Some(record) = Record::load(layout)?
        && record.holder.identity.is_alive()
        && !holders.contains(&record.holder)
    {
        holders.push(record.holder);
    }
    Ok(holders)
}

fn network_namespaces(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        holders(layout)?.iter().filter_map(|holder| std::fs::read_link(holder.netns()).ok()).collect();
    found.extend(Record::load(layout)?.map(|record| record.network_namespace));
    // Never the host's own, whatever a damaged record says.
    let own = std::fs::read_link("/proc/self/ns/net").context("cannot read /proc/self/ns/net")?;
    found.retain(|namespace| *namespace != own);
    found.sort();
    found.dedup();
    Ok(found)
}

/// Removes the state directory, unless something is mounted below it: a mount there would lead the
/// removal into somebody else's files.
fn remove_state(state: &Path) -> Result<()> {
    if !state.exists() {
        return Ok(());
    }
    let mounts =
        std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    if let Some(mount) = namespace::mount_points(&mounts).find(|point| Path::new(point).starts_with(state)) {
        bail!("{mount} is mounted inside of {}; unmount it first", state.display());
    }
    std::fs::remove_dir_all(state).with_context(|| format!("cannot remove {}", state.display()))
}

/// What is left of a cluster, by name.
fn leftovers(layout: &Layout, namespaces: &[PathBuf]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    // Not ours, so not ended: a shell or a server that somebody started with `nsenter`.
    for pid in processes::all()? {
        if std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|netns| namespaces.contains(&netns)) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            left.push(format!("process {pid} ({}) in the cluster's network namespace", name.trim()));
        }
    }
    // The kernel takes interfaces down a moment after the last process of a namespace.
    let gone = until(Duration::from_secs(10), Duration::from_millis(20), || {
        Ok(if network::is_connected(layout) { Err(layout.host_interface()) } else { Ok(()) })
    })?;
    if let Outcome::TimedOut(interface) = gone {
        left.push(format!("network interface {interface}"));
    }
    for cgroup in cgroups::existing(layout)? {
        left.push(format!("cgroup {}", cgroup.display()));
    }
    if layout.state().exists() {
        left.push(format!("directory {}", layout.state().display()));
    }
    Ok(left)
}

/// The record of a cluster that runs.
pub(super) fn running_record(layout: &Layout) -> Result<Record> {
    Record::load(layout)?
        .filter(|record| record.holder.is_usable())
        .with_context(|| format!("no cluster {0} is up; `cargo xtask cluster up --name {0}`", layout.name()))
}

/// Kills a component as a crash would (SIGKILL). Its data stays.
///
/// # Errors
/// When the cluster does not run, or the component survives.
pub fn kill_component(name: &str, component: Component) -> Result<()> {
    end_component(name, component, processes::Identity::kill)
}

/// Stops a component in order (SIGTERM, then SIGKILL after its grace). Its data stays.
///
/// # Errors
/// When the cluster does not run, or the component survives.
pub fn stop_component(name: &str, component: Component) -> Result<()> {
    end_component(name, component, |identity| identity.stop(component.grace()))
}

fn end_component(
    name: &str,
    component: Component,
    end: impl Fn(&processes::Identity) -> Result<()>,
) -> Result<()> {
    let layout = Layout::new(name)?;
    super::require_root("ending a component")?;
    let _lock = super::lock(&layout)?;
    let mut record = running_record(&layout)?;
    if let Some(identity) = record.components.remove(&component) {
        end(&identity).with_context(|| format!("cannot end {}", component.name()))?;
        record.save(&layout)?;
    }
    Ok(())
}
