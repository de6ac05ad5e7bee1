//! What these tests share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use stockade_core::path::HostPath;
use stockade_core::{Backend, BackendError, ContractVersion, Sandbox, SandboxId, SandboxSpec};
use stockade_kubernetes::testing::{ScriptedApi, settings};
use stockade_kubernetes::{KubernetesBackend, KubernetesSettings};

pub const NAMESPACE: &str = "deer-flow";

pub struct World {
    pub api: ScriptedApi,
    pub backend: Arc<KubernetesBackend>,
}

/// A backend whose index is proven.
pub async fn world() -> World {
    let world = world_unproven();
    until(&world, |backend| backend.health().ready).await;
    world.api.forget_calls();
    world
}

/// A backend that has not been given time to do anything.
pub fn world_unproven() -> World {
    world_with(settings(ContractVersion::V2, &HostPath::new("/srv/df").unwrap()))
}

/// The same with creates that wait so long, and URLs of this machine.
pub fn world_waiting(create_wait: Duration) -> World {
    let settings = settings(ContractVersion::V2, &HostPath::new("/srv/df").unwrap());
    world_with(KubernetesSettings { create_wait, node_host: "127.0.0.1".to_owned(), ..settings })
}

fn world_with(settings: KubernetesSettings) -> World {
    let (client, api) = ScriptedApi::start(NAMESPACE);
    let server = "https://127.0.0.1:6443".to_owned();
    let backend = KubernetesBackend::with_client(settings, client, server, &mut Registry::default());
    World { api, backend }
}

/// Lets time pass until it holds; the clock is paused, so this takes no time of ours.
pub async fn until(world: &World, holds: impl Fn(&KubernetesBackend) -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(600);
    while !holds(&world.backend) {
        assert!(tokio::time::Instant::now() < limit, "did not come true: {:?}", world.backend.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub fn id(text: &str) -> SandboxId {
    SandboxId::new(text).unwrap()
}

/// The deadline is on Tokio's clock: with it paused, a standard instant would never come.
pub fn in_seconds(seconds: u64) -> Instant {
    (tokio::time::Instant::now() + Duration::from_secs(seconds)).into_std()
}

impl World {
    pub async fn create(&self, name: &str) -> Result<Arc<Sandbox>, BackendError> {
        self.create_spec(&SandboxSpec::new(id(name))).await
    }

    pub async fn create_spec(&self, spec: &SandboxSpec) -> Result<Arc<Sandbox>, BackendError> {
        self.backend.create(spec, in_seconds(25)).await
    }

    pub async fn listed(&self) -> Vec<String> {
        let list = self.backend.list().await.unwrap();
        list.iter().map(|sandbox| sandbox.id.to_string()).collect()
    }

    pub fn summaries(&self) -> Vec<String> {
        self.api.calls().iter().map(stockade_kubernetes::testing::Call::summary).collect()
    }

    /// What the kubelet does to a Pod that comes up.
    pub fn make_ready(&self, name: &str) {
        self.api.edit("pods", &format!("sandbox-{name}"), |pod| {
            pod["status"] =
                json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        });
    }

    pub fn pod_uid(&self, name: &str) -> Option<Value> {
        let pods = self.api.objects("pods");
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == format!("sandbox-{name}"))?;
        Some(pod["metadata"]["uid"].clone())
    }
}
