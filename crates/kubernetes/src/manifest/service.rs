//! The Service of a sandbox.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stockade_core::SandboxId;

use super::{ID_LABEL, labels, pod_name, service_name};
use crate::settings::KubernetesSettings;

/// The Service of a sandbox, owned by the Pod of this UID, so that it goes when the Pod goes.
pub fn service(settings: &KubernetesSettings, id: &SandboxId, pod_uid: &str) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(service_name(id)),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels(id)),
            // Without blockOwnerDeletion: that needs a right on Pods' finalizers where the
            // OwnerReferencesPermissionEnforcement admission plugin is on.
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod_name(id),
                uid: pod_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some(settings.service_type.as_str().to_owned()),
            selector: Some([(ID_LABEL.to_owned(), id.to_string())].into()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(settings.container_port),
                target_port: Some(IntOrString::Int(i32::from(settings.container_port))),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            // The URL works as soon as the agent listens, not only once a probe has seen it.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
