//! URLs: at a port of the node, and by name inside of the cluster.

use std::time::Duration;

use stockade_api::CreateSandbox;
use stockade_e2e::wait;
use stockade_e2e::world::{ANSWERS, scenario};

#[test]
fn a_cluster_ip_sandbox_is_reached_by_name_from_another_pod() {
    scenario(async |world| {
        let outside = world.server().await;
        let inside = world.server_with(&[("SANDBOX_SERVICE_TYPE", "ClusterIP")]).await;
        let looker = outside.client().create(&CreateSandbox::new("looker")).await.unwrap();
        let sandbox = inside.client().create(&CreateSandbox::new("named")).await.unwrap();
        let namespace = &world.cluster.namespace;
        let url = format!("http://sandbox-named-svc.{namespace}.svc.cluster.local:8080");
        assert_eq!(sandbox.sandbox_url, url);
        let service = world.cluster.service("named").await.expect("a Service");
        assert_eq!(service.spec.and_then(|spec| spec.type_).as_deref(), Some("ClusterIP"));

        let looker = world.enter(&looker).await;
        let body = wait::until("the sandbox answers by its name", ANSWERS, async || {
            match looker.fetch(&format!("{url}/v1/sandbox")).await? {
                (200, body) => Ok(body),
                (status, body) => Err(format!("HTTP {status}: {body}")),
            }
        })
        .await;
        assert!(body.contains("sandbox-named"), "{body}");
    });
}

#[test]
fn a_sandbox_listens_where_the_setting_says() {
    scenario(async |world| {
        let server = world
            .server_with(&[("SANDBOX_SERVICE_TYPE", "ClusterIP"), ("SANDBOX_CONTAINER_PORT", "9999")])
            .await;
        let sandbox = server.client().create(&CreateSandbox::new("port")).await.unwrap();
        assert!(sandbox.sandbox_url.ends_with(".svc.cluster.local:9999"), "{}", sandbox.sandbox_url);
        // The test image listens on 8080, so that nothing answers the health check: said, not hidden.
        let waited =
            server.client().create_ready(&CreateSandbox::new("port"), Duration::from_secs(4)).await.unwrap();
        assert!(!waited.ready && waited.reason.is_some(), "{waited:?}");
    });
}
