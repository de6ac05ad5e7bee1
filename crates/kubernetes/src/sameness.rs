//! Whether a Pod that is there is the sandbox that is asked for.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use stockade_core::backend::Conflict;
use stockade_core::{ContractVersion, SandboxSpec};

use crate::manifest::{SANDBOX_CONTAINER, SIGNATURE_ANNOTATION, is_ours};
use crate::record::{PodRecord, Record};

/// Where the API server mounts the service account's token into every container.
const SERVICE_ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

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
        && containers(live) == containers(wanted);
    if same { Ok(()) } else { Err(Conflict::Mounts) }
}

fn signature(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(SIGNATURE_ANNOTATION).map(String::as_str)
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
    let own = mounts.filter(|mount| mount.mount_path != SERVICE_ACCOUNT_PATH);
    own.map(|mount| Seen {
        place: mount.mount_path.clone(),
        source: volumes.get(mount.name.as_str()).map_or_else(|| "missing".to_owned(), |v| source(v)),
        sub_path: sub_path(mount),
        read_only: mount.read_only.unwrap_or(false),
    })
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
        return "empty".to_owned();
    }
    "other".to_owned()
}

#[cfg(test)]
#[path = "sameness_tests.rs"]
mod tests;
