//! What is true in the cluster, asked of the cluster itself.

use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ObjectMeta;
use kube::{Client, Config};

/// The label every object of a sandbox has.
pub const SELECTOR: &str = "app=deer-flow-sandbox";

/// The administrator's client.
pub async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig)
        .unwrap_or_else(|error| panic!("KUBECONFIG={}: {error}", kubeconfig.display()));
    let config =
        Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a kubeconfig");
    Client::try_from(config).expect("a client")
}

/// The internal address of one of the nodes: where NodePorts answer.
pub async fn node_address(client: &Client) -> String {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.expect("the API server's answer").items;
    let mut addresses = nodes.into_iter().filter_map(|node| node.status?.addresses).flatten();
    addresses.find(|address| address.type_ == "InternalIP").expect("a node with an address").address
}

/// One namespace, seen by the administrator.
#[derive(Clone)]
pub struct View {
    /// The administrator's client.
    pub client: Client,
    /// Which namespace.
    pub namespace: String,
}

impl View {
    /// Its Pods.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Its Services.
    #[must_use]
    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Pod of a sandbox.
    pub async fn pod(&self, id: &str) -> Option<Pod> {
        self.pods().get_opt(&format!("sandbox-{id}")).await.expect("the API server's answer")
    }

    /// The Service of a sandbox.
    pub async fn service(&self, id: &str) -> Option<Service> {
        self.services().get_opt(&format!("sandbox-{id}-svc")).await.expect("the API server's answer")
    }

    /// The UID of a sandbox's Pod.
    pub async fn pod_uid(&self, id: &str) -> Option<String> {
        self.pod(id).await.and_then(|pod| pod.metadata.uid)
    }

    /// How many Pods and Services of sandboxes there are, those on their way out included.
    pub async fn count(&self) -> (usize, usize) {
        let ours = ListParams::default().labels(SELECTOR);
        let pods = self.pods().list(&ours).await.expect("the API server's answer").items.len();
        let services = self.services().list(&ours).await.expect("the API server's answer").items.len();
        (pods, services)
    }

    /// Whether nothing of any sandbox is there any more.
    ///
    /// # Errors
    /// When something is; the text says how much.
    pub async fn is_empty(&self) -> Result<(), String> {
        match self.count().await {
            (0, 0) => Ok(()),
            (pods, services) => Err(format!("{pods} Pods and {services} Services")),
        }
    }

    /// Whether nothing of this sandbox is there any more.
    ///
    /// # Errors
    /// When something is.
    pub async fn is_gone(&self, id: &str) -> Result<(), String> {
        match (self.pod(id).await, self.service(id).await) {
            (None, None) => Ok(()),
            (pod, service) => {
                let terminating = pod.as_ref().and_then(|pod| pod.metadata.deletion_timestamp.as_ref());
                Err(format!(
                    "Pod: {} (terminating: {}), Service: {}",
                    pod.is_some(),
                    terminating.is_some(),
                    service.is_some()
                ))
            }
        }
    }

    /// Makes the namespace, for tests that need it before the server does.
    pub async fn make_namespace(&self) {
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(self.namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.expect("a new namespace");
    }

    /// The namespace's UID.
    pub async fn namespace_uid(&self) -> Option<String> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = api.get_opt(&self.namespace).await.expect("the API server's answer");
        found.and_then(|namespace| namespace.metadata.uid)
    }

    /// Removes the namespace and everything in it. The cluster does it in its own time.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn remove_namespace(&self) -> Result<(), kube::Error> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.delete(&self.namespace, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the Pods look like, for a test that failed.
    pub async fn describe(&self) -> String {
        let pods = self.pods().list(&ListParams::default()).await;
        let mut text = String::new();
        for pod in pods.map(|list| list.items).unwrap_or_default() {
            let name = pod.metadata.name.unwrap_or_default();
            let ending = pod.metadata.deletion_timestamp.is_some();
            let status = serde_json::to_string(&pod.status).unwrap_or_default();
            text.push_str(&format!("{name} (terminating: {ending}): {status}\n"));
        }
        text
    }
}
