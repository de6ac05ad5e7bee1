//! Volumes and volume mounts.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, PersistentVolumeClaimVolumeSource, Volume, VolumeMount,
};
use stockade_core::mount::{self, MissingDirectory, Source};

pub(super) fn volume(volume: &mount::Volume) -> Volume {
    let mut result = Volume { name: volume.name.clone(), ..Volume::default() };
    match &volume.source {
        Source::Host { path, missing } => {
            let kind = match missing {
                MissingDirectory::Refuse => "Directory",
                MissingDirectory::Create => "DirectoryOrCreate",
            };
            result.host_path =
                Some(HostPathVolumeSource { path: path.to_string(), type_: Some(kind.to_owned()) });
        }
        Source::Claim { name, read_only } => {
            result.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: read_only.then_some(true),
            });
        }
        Source::Empty => result.empty_dir = Some(EmptyDirVolumeSource::default()),
    }
    result
}

pub(super) fn volume_mount(mount: &mount::Mount) -> VolumeMount {
    VolumeMount {
        name: mount.volume.clone(),
        mount_path: mount.target.to_string(),
        sub_path: mount.sub_path.clone(),
        read_only: Some(mount.read_only),
        ..VolumeMount::default()
    }
}
