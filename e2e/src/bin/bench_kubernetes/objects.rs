//! The two objects of a sandbox as a bare client writes them: the provisioner's own, under other names.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use kube::core::ObjectMeta;
use stockade_e2e::cluster::View;

/// A Pod and a Service to write again and again.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pod: Pod,
    service: Service,
}

impl Objects {
    /// Those of a sandbox that is there.
    pub(crate) async fn of(view: &View, id: &str) -> Self {
        let mut pod = view.pod(id).await.expect("the Pod that the provisioner made");
        let mut service = view.service(id).await.expect("the Service that the provisioner made");
        pod.metadata = stripped(&pod.metadata);
        pod.status = None;
        if let Some(spec) = &mut pod.spec {
            spec.node_name = None;
        }
        service.metadata = stripped(&service.metadata);
        service.status = None;
        if let Some(spec) = &mut service.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
            for port in spec.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
        Self { pod, service }
    }

    /// Without addresses, of which a cluster has only some thousands: for tens of thousands of objects.
    pub(crate) fn without_addresses(mut self) -> Self {
        if let Some(spec) = &mut self.service.spec {
            spec.type_ = Some("ClusterIP".to_owned());
            spec.cluster_ip = Some("None".to_owned());
            spec.external_traffic_policy = None;
        }
        self
    }

    pub(crate) async fn write_pod(&self, pods: &Api<Pod>, id: &str) -> Pod {
        let mut pod = self.pod.clone();
        rename(&mut pod.metadata, id, "");
        pods.create(&PostParams::default(), &pod).await.expect("a Pod is taken")
    }

    pub(crate) async fn write_service(&self, services: &Api<Service>, id: &str) -> Service {
        let mut service = self.service.clone();
        rename(&mut service.metadata, id, "-svc");
        if let Some(selector) = service.spec.as_mut().and_then(|spec| spec.selector.as_mut()) {
            selector.insert("sandbox-id".to_owned(), id.to_owned());
        }
        services.create(&PostParams::default(), &service).await.expect("a Service is taken")
    }
}

/// Removes both, without waiting for the Pod's end.
pub(crate) async fn remove(view: &View, id: &str) {
    let params = DeleteParams::default();
    let _ = view.pods().delete(&format!("sandbox-{id}"), &params).await;
    let _ = view.services().delete(&format!("sandbox-{id}-svc"), &params).await;
}

fn stripped(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
        ..ObjectMeta::default()
    }
}

fn rename(metadata: &mut ObjectMeta, id: &str, suffix: &str) {
    metadata.name = Some(format!("sandbox-{id}{suffix}"));
    if let Some(labels) = &mut metadata.labels {
        labels.insert("sandbox-id".to_owned(), id.to_owned());
    }
}
