//! The Pod of a sandbox.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, Pod, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stockade_core::layout::MountPlan;
use stockade_core::{SandboxSpec, signature};

use super::{
    CONTRACT_ANNOTATION, SIGNATURE_ANNOTATION, THREAD_ANNOTATION, USER_ANNOTATION, agent, labels, lark,
    pod_name, volumes,
};
use crate::settings::KubernetesSettings;

/// The container the sandbox agent runs in.
pub(crate) const SANDBOX_CONTAINER: &str = "sandbox";
/// The sandbox agent's health check.
const HEALTH_PATH: &str = "/v1/sandbox";

/// The Pod of a sandbox with these mounts.
pub fn pod(settings: &KubernetesSettings, spec: &SandboxSpec, mounts: &MountPlan) -> Pod {
    let mut containers = vec![sandbox_container(settings, mounts)];
    containers.extend(lark::sidecar(&settings.lark, mounts));
    let hardened = settings.hardening.then_some(false);
    let mut pod_spec = PodSpec {
        init_containers: lark::init_container(&settings.lark, mounts.lark).map(|init| vec![init]),
        containers,
        restart_policy: Some("Always".to_owned()),
        volumes: Some(mounts.volumes.iter().map(volumes::volume).collect()),
        automount_service_account_token: hardened,
        enable_service_links: hardened,
        ..PodSpec::default()
    };
    if let Some(image) = &settings.agent_image {
        agent::add(&mut pod_spec, settings, mounts, image);
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(&spec.id)),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels(&spec.id)),
            annotations: Some(annotations(settings, spec, mounts)),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

fn annotations(
    settings: &KubernetesSettings,
    spec: &SandboxSpec,
    mounts: &MountPlan,
) -> BTreeMap<String, String> {
    [
        (USER_ANNOTATION, spec.user.to_string()),
        (THREAD_ANNOTATION, spec.thread.to_string()),
        (CONTRACT_ANNOTATION, settings.storage.contract.to_string()),
        (SIGNATURE_ANNOTATION, signature::of(mounts)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn sandbox_container(settings: &KubernetesSettings, mounts: &MountPlan) -> Container {
    Container {
        name: SANDBOX_CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: lark::sandbox_env(mounts.lark),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: i32::from(settings.container_port),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // One second after the agent listens, the Pod is ready; the reference waits five and asks every five.
        readiness_probe: Some(probe(settings, Timing { delay: 0, period: 1 })),
        // An image with a browser in it takes up to 13 s to start, so the first failure may not count early.
        liveness_probe: Some(probe(settings, Timing { delay: 10, period: 10 })),
        resources: Some(resources(["100m", "256Mi", "500Mi"], ["1000m", "1Gi", "500Mi"])),
        security_context: Some(SecurityContext {
            privileged: Some(false),
            allow_privilege_escalation: Some(!settings.hardening),
            seccomp_profile: settings
                .hardening
                .then(|| SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts.mounts.iter().map(volumes::volume_mount).collect()),
        ..Container::default()
    }
}

/// In seconds.
#[derive(Clone, Copy)]
struct Timing {
    delay: i32,
    period: i32,
}

fn probe(settings: &KubernetesSettings, timing: Timing) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(HEALTH_PATH.to_owned()),
            port: IntOrString::Int(i32::from(settings.container_port)),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: (timing.delay > 0).then_some(timing.delay),
        period_seconds: Some(timing.period),
        timeout_seconds: Some(3),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

/// Processor, memory and ephemeral storage: what is set aside, and what may be used.
pub(super) fn resources(requests: [&str; 3], limits: [&str; 3]) -> ResourceRequirements {
    let amounts = |amounts: [&str; 3]| {
        ["cpu", "memory", "ephemeral-storage"]
            .into_iter()
            .zip(amounts)
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .collect::<BTreeMap<_, _>>()
    };
    ResourceRequirements {
        requests: Some(amounts(requests)),
        limits: Some(amounts(limits)),
        ..ResourceRequirements::default()
    }
}
