//! What the sandbox agent does before a sandbox starts, and how it comes into an image that does not have it.
//!
//! An init container of an image whose entry point is the agent opens the directory of a new thread, which the
//! kubelet makes for root alone, to the user of the sandbox's image. Where the agent is to be injected, it copies
//! it into an empty volume too, and the sandbox's container runs it from there in place of the image's own entry
//! point.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, PodSpec, SeccompProfile, SecurityContext, Volume,
    VolumeMount,
};

use stockade_core::layout::MountPlan;
use stockade_core::mount::Mount;

use super::pod::resources;
use super::{SANDBOX_CONTAINER, volumes};
use crate::settings::KubernetesSettings;

/// Where the agent lies in a sandbox. No mount of a caller can be here: they all are below `/mnt`.
pub(crate) const AGENT_DIRECTORY: &str = "/opt/stockade";
/// Where a sandbox has its thread's files.
const USER_DATA: &str = "/mnt/user-data";
/// The name of the init container and of the volume.
const NAME: &str = "stockade-agent";

/// Adds what the agent of this image does.
pub(super) fn add(spec: &mut PodSpec, settings: &KubernetesSettings, mounts: &MountPlan, image: &str) {
    let user_data = mounts.mounts.iter().find(|mount| mount.target.as_str() == USER_DATA);
    spec.init_containers.get_or_insert_default().push(init_container(settings, user_data, image));
    if settings.inject_agent {
        inject(spec, settings);
    }
}

/// Makes the sandbox's container run the agent that the init container has copied.
fn inject(spec: &mut PodSpec, settings: &KubernetesSettings) {
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

fn init_container(settings: &KubernetesSettings, user_data: Option<&Mount>, image: &str) -> Container {
    // Arguments of the entry point: the image has no other program. An agent that knows nothing of the second
    // does the first.
    let install = settings.inject_agent.then_some(["--install", AGENT_DIRECTORY]);
    let open = user_data.map(|_| ["--open-user-data", USER_DATA]);
    let args = install.into_iter().chain(open).flatten().map(str::to_owned).collect();
    let agent = settings.inject_agent.then(|| mount(false));
    let volume_mounts = agent.into_iter().chain(user_data.map(volumes::volume_mount)).collect();
    Container {
        name: NAME.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(args),
        // For namespaces with a quota, which want every container to say them.
        resources: Some(resources(["10m", "16Mi", "16Mi"], ["500m", "64Mi", "64Mi"])),
        security_context: Some(SecurityContext {
            // Whoever owns a directory may open it, without any capability: the kubelet is root.
            run_as_user: Some(0),
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            seccomp_profile: settings
                .hardening
                .then(|| SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(volume_mounts),
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
