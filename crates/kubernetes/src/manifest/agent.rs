//! Bringing the sandbox agent into an image that does not have it.
//!
//! An init container of an image whose entry point is the agent copies it into an empty volume, and the
//! sandbox's container runs it from there in place of the image's own entry point.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, PodSpec, SeccompProfile, SecurityContext, Volume,
    VolumeMount,
};

use super::SANDBOX_CONTAINER;
use super::pod::resources;
use crate::settings::KubernetesSettings;

/// Where the agent lies in a sandbox. No mount of a caller can be here: they all are below `/mnt`.
pub(crate) const AGENT_DIRECTORY: &str = "/opt/stockade";
/// The name of the init container and of the volume.
const NAME: &str = "stockade-agent";

/// Makes the sandbox's container run the agent of this image.
pub(super) fn inject(spec: &mut PodSpec, settings: &KubernetesSettings, image: &str) {
    spec.init_containers.get_or_insert_default().push(init_container(settings, image));
    spec.volumes.get_or_insert_default().push(Volume {
        name: NAME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    for container in spec.containers.iter_mut().filter(|container| container.name == SANDBOX_CONTAINER) {
        container.command = Some(vec![format!("{AGENT_DIRECTORY}/stockade-agent")]);
        container.args = Some(vec![format!("--listen=0.0.0.0:{}", settings.container_port)]);
        container.volume_mounts.get_or_insert_default().push(mount(true));
    }
}

fn init_container(settings: &KubernetesSettings, image: &str) -> Container {
    Container {
        name: NAME.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        // Arguments of the entry point: the image has no other program.
        args: Some(vec!["--install".to_owned(), AGENT_DIRECTORY.to_owned()]),
        // For namespaces with a quota, which want every container to say them.
        resources: Some(resources(["10m", "16Mi", "16Mi"], ["500m", "64Mi", "64Mi"])),
        security_context: Some(SecurityContext {
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            seccomp_profile: settings
                .hardening
                .then(|| SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount(false)]),
        ..Container::default()
    }
}

fn mount(read_only: bool) -> VolumeMount {
    VolumeMount {
        name: NAME.to_owned(),
        mount_path: AGENT_DIRECTORY.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}
