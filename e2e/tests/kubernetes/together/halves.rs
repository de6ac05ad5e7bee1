//! Sandboxes that are half there, because a server died between its two writes or somebody took a part.

use std::time::Duration;

use kube::api::{DeleteParams, PostParams};
use stockade_api::CreateSandbox;
use stockade_e2e::cluster::View;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

use crate::support::listed;

/// A Pod is given its Service 30 s after its creation; the loop looks every 5 s.
const COMPLETED: Duration = Duration::from_secs(60);
/// A Service without a Pod is removed after 60 s.
const REMOVED: Duration = Duration::from_secs(90);

async fn take_service(cluster: &View, id: &str) {
    let name = format!("sandbox-{id}-svc");
    cluster.services().delete(&name, &DeleteParams::default()).await.unwrap();
    wait::until("the Service is gone", Duration::from_secs(10), async || {
        if cluster.service(id).await.is_none() { Ok(()) } else { Err("it is there") }
    })
    .await;
}

#[test]
fn a_pod_without_service_gets_one_from_the_next_create() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        client.create(&CreateSandbox::new("half")).await.unwrap();
        let uid = world.cluster.pod_uid("half").await;
        take_service(&world.cluster, "half").await;
        wait::until("a sandbox without address is not listed", Duration::from_secs(5), async || {
            let listed = listed(&server).await;
            if listed.is_empty() { Ok(()) } else { Err(format!("{listed:?}")) }
        })
        .await;
        let whole = client.create(&CreateSandbox::new("half")).await.unwrap();
        assert_eq!(world.cluster.pod_uid("half").await, uid, "the Pod was replaced");
        world.enter(&whole).await;
    });
}

#[test]
fn a_pod_without_service_is_completed_without_being_asked() {
    scenario(async |world| {
        let server = world.server().await;
        server.client().create(&CreateSandbox::new("orphan")).await.unwrap();
        let pod = world.cluster.pod("orphan").await.expect("a Pod");
        server.kill().await;
        take_service(&world.cluster, "orphan").await;

        let next = world.server().await;
        let service = wait::until("the Service is made again", COMPLETED, async || {
            world.cluster.service("orphan").await.ok_or("none")
        })
        .await;
        let owners = service.metadata.owner_references.unwrap_or_default();
        assert_eq!(owners.first().map(|owner| owner.uid.clone()), pod.metadata.uid);
        let sandbox = wait::until("it is found", Duration::from_secs(5), async || {
            next.client().get("orphan").await.unwrap().ok_or("404")
        })
        .await;
        world.enter(&sandbox).await;
    });
}

#[test]
fn a_pod_made_by_an_older_provisioner_is_listed_found_and_deleted() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        client.create(&CreateSandbox::new("older")).await.unwrap();
        // What the reference makes has the same labels and none of our annotations.
        let mut pod = world.cluster.pod("older").await.expect("a Pod");
        let mut service = world.cluster.service("older").await.expect("a Service");
        client.delete("older").await.unwrap();
        world.wait_gone("older").await;
        pod.metadata = strip(pod.metadata);
        pod.status = None;
        if let Some(spec) = &mut pod.spec {
            spec.node_name = None;
        }
        service.metadata = strip(service.metadata);
        service.status = None;
        if let Some(spec) = &mut service.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        world.cluster.pods().create(&PostParams::default(), &pod).await.unwrap();
        world.cluster.services().create(&PostParams::default(), &service).await.unwrap();

        let found = wait::until("it is found", Duration::from_secs(5), async || {
            client.get("older").await.unwrap().ok_or("404")
        })
        .await;
        assert_eq!((found.user_id.clone(), found.mount_contract_version), (Some(None), Some(None)));
        assert_eq!(listed(&server).await, ["older"]);
        let (status, detail) = crate::support::refusal(client.create(&CreateSandbox::new("older")).await);
        assert!(status == 409 && detail.contains("incompatible or unverifiable"), "{status} {detail}");
        client.delete("older").await.unwrap();
        world.wait_gone("older").await;
    });
}

fn strip(metadata: kube::core::ObjectMeta) -> kube::core::ObjectMeta {
    kube::core::ObjectMeta { name: metadata.name, labels: metadata.labels, ..Default::default() }
}

#[test]
fn a_service_that_leads_nowhere_is_said_so_and_removed() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        client.create(&CreateSandbox::new("lost")).await.unwrap();
        let mut service = world.cluster.service("lost").await.expect("a Service");
        client.delete("lost").await.unwrap();
        world.wait_gone("lost").await;
        service.metadata = strip(service.metadata);
        service.status = None;
        if let Some(spec) = &mut service.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        // Without an owner the cluster itself never removes it.
        world.cluster.services().create(&PostParams::default(), &service).await.unwrap();
        wait::until("it is NotFound", Duration::from_secs(5), async || {
            let answer = server.get("/api/sandboxes/lost").await;
            if answer.json()["status"] == "NotFound" { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        wait::until("it is removed", REMOVED, async || world.cluster.is_gone("lost").await).await;
    });
}

#[test]
fn a_namespace_that_somebody_deleted_is_made_again_by_the_next_create() {
    scenario(async |world| {
        let server = world.server().await;
        world.cluster.remove_namespace().await.unwrap();
        wait::until("the namespace is gone", Duration::from_secs(60), async || {
            if world.cluster.namespace_uid().await.is_none() { Ok(()) } else { Err("it is there") }
        })
        .await;
        // The new namespace's default service account comes a moment after it; until then Pods are refused.
        let sandbox = wait::until("a create succeeds", Duration::from_secs(20), async || {
            server.client().create(&CreateSandbox::new("phoenix")).await.map_err(|error| error.to_string())
        })
        .await;
        world.enter(&sandbox).await;
    });
}
