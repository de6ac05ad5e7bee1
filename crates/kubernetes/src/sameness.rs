//! Whether a Pod that is there is the sandbox that is asked for.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use stockade_core::backend::Conflict;
use stockade_core::{ContractVersion, SandboxSpec};

use crate::manifest::{AGENT_DIRECTORY, SANDBOX_CONTAINER, SIGNATURE_ANNOTATION, is_ours};
use crate::record::{PodRecord, Record};

/// The source of volumes that admission plugins add: the service account's token first of all.
const INJECTED: &str = "injected";
/// The source of empty volumes.
const EMPTY: &str = "empty";

/// Compares the live Pod with the one we would make now.
///
/// Under contract 1 identity counts only where it was recorded, and mounts do not count. Under contract 2
/// what was recorded must match *and* the live Pod's own volumes and mounts must: an annotation can be
/// edited, or copied by a tool that changed the rest.
pub(crate) fn check(
    live: &Pod,
    wanted: &Pod,
    spec: &SandboxSpec,
    contract: ContractVersion,
) -> Result<(), Conflict> {
    let Some((_, record)) = PodRecord::of(live) else {
        return Err(Conflict::Mounts); // somebody else's Pod of our name
    };
    if let Some(identity) = &record.identity {
        if identity.user != spec.user {
            return Err(Conflict::User);
        }
        if identity.thread != spec.thread {
            return Err(Conflict::Thread);
        }
    }
    if contract == ContractVersion::V1 {
        return Ok(());
    }
    let same = record.identity.is_some()
        && is_ours(live.metadata.labels.as_ref(), &spec.id)
        && signature(live).is_some()
        && signature(live) == signature(wanted)
        && sees_the_same(live, wanted);
    if same { Ok(()) } else { Err(Conflict::Mounts) }
}

fn signature(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(SIGNATURE_ANNOTATION).map(String::as_str)
}

/// Whether each of our containers sees what it should. What clusters inject on their own (tokens, secrets,
/// certificates of a mesh) does not count as long as it covers nothing of ours; a directory of the node, or a
/// claim, that nobody asked for does.
fn sees_the_same(live: &Pod, wanted: &Pod) -> bool {
    let (Some(live), Some(wanted)) = (containers(live), containers(wanted)) else { return false };
    let same_names = live.keys().eq(wanted.keys());
    same_names
        && wanted.iter().all(|(name, wanted)| {
            let live = &live[name];
            wanted.is_subset(live)
                && live.difference(wanted).all(|extra| {
                    extra.source == INJECTED && !wanted.iter().any(|seen| covers(&extra.place, &seen.place))
                })
        })
}

/// Whether a mount at `upper` hides `lower`, or part of it.
fn covers(upper: &str, lower: &str) -> bool {
    let below =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below(lower, upper) || below(upper, lower)
}

/// What each container that mounts something sees: by place, not by volume name or order.
type Containers = BTreeMap<String, BTreeSet<Seen>>;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    place: String,
    source: String,
    sub_path: String,
    read_only: bool,
}

fn containers(pod: &Pod) -> Option<Containers> {
    let spec = pod.spec.as_ref()?;
    let volumes: BTreeMap<&str, &Volume> =
        spec.volumes.iter().flatten().map(|volume| (volume.name.as_str(), volume)).collect();
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    // Service meshes inject containers of their own; those that matter are ours.
    let ours = all.filter(|c| c.name == SANDBOX_CONTAINER || c.name.starts_with("lark-cli-"));
    Some(ours.map(|container| (container.name.clone(), seen(container, &volumes))).collect())
}

fn seen(container: &Container, volumes: &BTreeMap<&str, &Volume>) -> BTreeSet<Seen> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| Seen {
            place: mount.mount_path.clone(),
            source: volumes.get(mount.name.as_str()).map_or_else(|| "missing".to_owned(), |v| source(v)),
            sub_path: sub_path(mount),
            read_only: mount.read_only.unwrap_or(false),
        })
        // How the agent comes into the image says nothing about files: as with another image, a sandbox that
        // was made before the setting changed stays what it is.
        .filter(|seen| !(seen.place == AGENT_DIRECTORY && seen.source == EMPTY))
        .collect()
}

fn sub_path(mount: &VolumeMount) -> String {
    match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) => path.clone(),
        (None, Some(expression)) => format!("expression {expression}"),
        (None, None) => String::new(),
    }
}

fn source(volume: &Volume) -> String {
    if let Some(host) = &volume.host_path {
        return format!("host {} {}", host.type_.as_deref().unwrap_or_default(), host.path);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return format!("claim {} {}", claim.claim_name, claim.read_only.unwrap_or(false));
    }
    if volume.empty_dir.is_some() {
        return EMPTY.to_owned();
    }
    let is_injected = volume.projected.is_some()
        || volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some();
    if is_injected { INJECTED.to_owned() } else { "other".to_owned() }
}

#[cfg(test)]
#[path = "sameness_tests.rs"]
mod tests;
