//! Servers that may do only so much.

use std::path::PathBuf;

use k8s_openapi::api::rbac::v1::PolicyRule;
use stockade_api::CreateSandbox;
use stockade_e2e::identity::{kubeconfig_with, rule};
use stockade_e2e::server::Server;
use stockade_e2e::wait;
use stockade_e2e::world::{World, scenario};

use crate::support::listed;

/// A ready server that has these rights in the namespace.
async fn server_with_rights(world: &World, rules: Vec<PolicyRule>) -> Server {
    let kubeconfig =
        kubeconfig_with(&world.cluster, &world.run.kubeconfig, rules, world.dirs.path("").as_path()).await;
    world.server_with(&[("KUBECONFIG_PATH", kubeconfig.to_str().expect("a plain path"))]).await
}

/// Everything of the contract that needs no more than Pods and Services.
async fn whole_life(world: &World, server: &Server) {
    let client = server.client();
    let sandbox = client.create(&CreateSandbox::new("right")).await.unwrap();
    world.enter(&sandbox).await;
    assert!(client.get("right").await.unwrap().is_some());
    assert_eq!(listed(server).await, ["right"]);
    assert_eq!(server.get("/api/sandboxes/right/logs").await.status, 200);
    client.delete("right").await.unwrap();
    let again = client.create(&CreateSandbox::new("right")).await.unwrap();
    world.enter(&again).await;
    client.delete("right").await.unwrap();
    world.wait_gone("right").await;
    assert_eq!(client.get("right").await.unwrap(), None);
}

#[test]
fn the_rights_of_deer_flows_chart_suffice() {
    scenario(async |world| {
        world.cluster.make_namespace().await;
        let verbs = ["get", "list", "watch", "create", "delete"];
        let server = server_with_rights(world, vec![rule(&["pods", "pods/log", "services"], &verbs)]).await;
        whole_life(world, &server).await;
        // What this role lacks switches off what needs it, and nothing else.
        let events = server.get("/api/sandboxes/right/events").await;
        assert_ne!(events.status, 200);
        let log = server.log_text();
        assert_eq!(log.matches("no right to watch events").count(), 1, "{log}");
    });
}

#[test]
fn the_role_we_ship_suffices() {
    scenario(async |world| {
        world.cluster.make_namespace().await;
        let server = server_with_rights(world, shipped_rules(&world.cluster.namespace)).await;
        whole_life(world, &server).await;
        let truth = server.get("/api/reconciliation/sandboxes/right").await;
        assert_eq!(truth.json()["status"], "absent", "{}", truth.text());
        // Events come with a reason for what is wrong: another right of the role.
        server.client().create(&crate::support::mk_request("evented", "stranger", "t1")).await.unwrap();
        wait::until("the reason of a warning event", stockade_e2e::world::GONE, async || {
            let sandbox = server.client().get("evented").await.unwrap().ok_or("404")?;
            if sandbox.reason.as_deref() == Some("FailedMount") { Ok(()) } else { Err("another reason") }
        })
        .await;
        assert_eq!(server.get("/api/sandboxes/evented/events").await.status, 200);
        let log = server.log_text();
        assert!(
            !log.contains("forbidden") && !log.contains("no right"),
            "something is not permitted:\n{log}"
        );
    });
}

/// The rules of the Role in `deploy/kubernetes/rbac.yaml`, for another namespace than the one there.
fn shipped_rules(namespace: &str) -> Vec<PolicyRule> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/rbac.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let role = documents.iter().find(|document| document["kind"] == "Role").expect("a Role");
    let shipped = role["metadata"]["namespace"].as_str().expect("the Role's namespace");
    let mut rules: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone()).expect("rules");
    for name in rules.iter_mut().flat_map(|rule| rule.resource_names.iter_mut().flatten()) {
        assert_eq!(name, shipped, "a right on something else than the namespace");
        *name = namespace.to_owned();
    }
    rules
}
