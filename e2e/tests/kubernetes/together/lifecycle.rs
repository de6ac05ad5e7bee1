//! One sandbox from its creation to its end.

use std::time::Duration;

use kube::ResourceExt;
use stockade_api::CreateSandbox;
use stockade_e2e::world::{GONE, scenario};
use stockade_e2e::{http, wait};

use crate::support::{listed, mk_request, refusal};

#[test]
fn a_sandbox_answers_at_its_url_until_it_is_deleted() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let sandbox = client.create(&CreateSandbox::new("life")).await.unwrap();
        assert_eq!(sandbox.thread_id.clone().flatten().as_deref(), Some("life"));
        assert_eq!(sandbox.user_id.clone().flatten().as_deref(), Some("default"));
        assert_eq!(sandbox.mount_contract_version, Some(Some(2)));
        let testbox = world.enter(&sandbox).await;

        let found = wait::until("the sandbox is ready", GONE, async || {
            let found = client.get("life").await.unwrap().ok_or("404")?;
            if found.ready { Ok(found) } else { Err("not ready") }
        })
        .await;
        assert_eq!((found.status.as_ref(), found.reason.as_deref()), ("Running", None));
        assert_eq!(found.sandbox_url, sandbox.sandbox_url);
        assert_eq!(client.list().await.unwrap().sandboxes, [found]);

        assert!(client.delete("life").await.unwrap().ok);
        assert_eq!(client.get("life").await.unwrap(), None, "a deleted sandbox is found");
        assert_eq!(listed(&server).await, [""; 0], "a deleted sandbox is listed");
        world.wait_gone("life").await;
        assert!(testbox.host_name().await.is_err(), "a deleted sandbox answers at its URL");
        assert_eq!(server.get("/api/sandboxes/life").await.json()["detail"], "Sandbox 'life' not found");
        assert!(client.delete("life").await.unwrap().ok, "deleting what is gone is a success");
    });
}

#[test]
fn the_service_belongs_to_the_pod_and_goes_with_it() {
    scenario(async |world| {
        let server = world.server().await;
        server.client().create(&CreateSandbox::new("owned")).await.unwrap();
        let pod = world.cluster.pod("owned").await.expect("a Pod");
        let service = world.cluster.service("owned").await.expect("a Service");
        let owners = service.owner_references();
        assert_eq!(owners.len(), 1);
        assert_eq!(
            (owners[0].kind.as_str(), Some(owners[0].uid.as_str())),
            ("Pod", pod.metadata.uid.as_deref())
        );

        // Somebody else deletes the Pod: the cluster itself removes the Service.
        world.cluster.pods().delete("sandbox-owned", &kube::api::DeleteParams::default()).await.unwrap();
        world.wait_gone("owned").await;
    });
}

#[test]
fn a_pod_that_somebody_else_deletes_is_gone_here_too_and_can_be_made_again() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let first = client.create(&CreateSandbox::new("other")).await.unwrap();
        world.enter(&first).await;
        let first_uid = world.cluster.pod_uid("other").await;

        world.cluster.pods().delete("sandbox-other", &kube::api::DeleteParams::default()).await.unwrap();
        wait::until("the deletion is seen", Duration::from_secs(5), async || {
            match client.get("other").await.unwrap() {
                None => Ok(()),
                Some(sandbox) => Err(format!("{sandbox:?}")),
            }
        })
        .await;
        assert_eq!(listed(&server).await, [""; 0]);
        let again = client.create(&CreateSandbox::new("other")).await.unwrap();
        world.enter(&again).await;
        assert_ne!(world.cluster.pod_uid("other").await, first_uid);
    });
}

#[test]
fn the_same_create_again_answers_with_the_same_sandbox() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        world.dirs.make_user("alice");
        let request = mk_request("same", "alice", "t1");
        let first = client.create(&request).await.unwrap();
        let uid = world.cluster.pod_uid("same").await;
        let second = client.create(&request).await.unwrap();
        assert_eq!((&second.sandbox_url, &second.user_id), (&first.sandbox_url, &first.user_id));
        assert_eq!(world.cluster.pod_uid("same").await, uid);
        assert_eq!(world.cluster.count().await, (1, 1));
    });
}

#[test]
fn an_id_that_somebody_else_uses_is_a_conflict() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let request = mk_request("taken", "default", "t1");
        client.create(&request).await.unwrap();

        let (status, detail) = refusal(client.create(&mk_request("taken", "mallory", "t1")).await);
        assert!(status == 409 && detail.contains("another user"), "{status} {detail}");
        let (status, _) = refusal(client.create(&mk_request("taken", "default", "t2")).await);
        assert_eq!(status, 409);
        let mut other_mounts = request.clone();
        other_mounts.extra_mounts.push(stockade_api::create::ExtraMount {
            host_path: world.dirs.make("acp"),
            container_path: "/mnt/acp-workspace".to_owned(),
            read_only: false,
        });
        let (status, detail) = refusal(client.create(&other_mounts).await);
        assert!(status == 409 && detail.contains("incompatible or unverifiable"), "{status} {detail}");
        let mut old_contract = request.clone();
        old_contract.required_mount_contract_version = Some(3);
        let answer = server.post("/api/sandboxes", &serde_json::to_value(&old_contract).unwrap()).await;
        assert_eq!(answer.status, 409);
        let expected = serde_json::json!({"code": "mount_contract_changed", "expected": 3, "actual": 2});
        assert_eq!(answer.json()["detail"], expected);
        client.create(&request).await.expect("its owner still gets it");
    });
}

#[test]
fn the_reconciliation_endpoint_tells_the_clusters_truth() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let sandbox = client.create(&mk_request("truth", "default", "t1")).await.unwrap();
        let namespace = world.cluster.namespace_uid().await.expect("the namespace");

        let found = client.reconcile("truth").await.unwrap();
        assert_eq!((found.status.as_str(), found.backend_namespace.as_str()), ("found", namespace.as_str()));
        assert_eq!(found.incarnation_id, world.cluster.pod_uid("truth").await);
        assert_eq!(found.sandbox_url.as_deref(), Some(sandbox.sandbox_url.as_ref()));
        assert_eq!(found.thread_id, Some(Some("t1".to_owned())));

        // No cache may lag here: asked at once after the change.
        world
            .cluster
            .services()
            .delete("sandbox-truth-svc", &kube::api::DeleteParams::default())
            .await
            .unwrap();
        let half = client.reconcile("truth").await.unwrap();
        assert_eq!((half.status.as_str(), half.sandbox_url), ("found", None));
        let now = kube::api::DeleteParams::default().grace_period(0);
        world.cluster.pods().delete("sandbox-truth", &now).await.unwrap();
        let absent = client.reconcile("truth").await.unwrap();
        assert_eq!((absent.status.as_str(), absent.incarnation_id), ("absent", None));
        assert_eq!(absent.backend_namespace, namespace);
        assert_eq!(client.reconcile("Not_An_Id").await.unwrap().status, "absent");
    });
}

#[test]
fn a_create_that_waits_answers_with_a_sandbox_that_serves() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let sandbox =
            client.create_ready(&CreateSandbox::new("waits"), Duration::from_secs(25)).await.unwrap();
        assert!(sandbox.ready, "{sandbox:?}");
        assert_eq!(sandbox.status, "Running");
        // Ready is the Pod's word; the NodePort follows within kube-proxy's period.
        world.enter(&sandbox).await;
        let again = server.get("/api/sandboxes/waits?wait=ready&timeout=5").await;
        assert_eq!((again.status, again.json()["ready"].as_bool()), (200, Some(true)));
    });
}

#[test]
fn health_is_open_and_everything_else_wants_the_key() {
    scenario(async |world| {
        let server = world.server().await;
        for path in ["/health", "/healthz", "/readyz"] {
            assert_eq!(http::get(&format!("{}{path}", server.url)).await.unwrap().status, 200, "{path}");
        }
        for path in
            ["/api/sandboxes", "/api/sandboxes/x", "/api/capabilities", "/api/reconciliation/sandboxes/x"]
        {
            let answer = http::get(&format!("{}{path}", server.url)).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized"), "{path}");
        }
        let open =
            world.server_with(&[("PROVISIONER_API_KEY", ""), ("PROVISIONER_AUTH_DISABLED", "true")]).await;
        assert_eq!(http::get(&format!("{}/api/sandboxes", open.url)).await.unwrap().status, 200);
        let closed = world.server_with(&[("PROVISIONER_API_KEY", "")]).await;
        assert_eq!(http::get(&format!("{}/api/sandboxes", closed.url)).await.unwrap().status, 401);
    });
}
