use serde_json::{Value, json};
use stockade_core::backend::Capabilities;
use stockade_core::layout::LarkSupport;
use stockade_core::resources::{Bytes, Millicores};
use stockade_core::{ContractVersion, SandboxSpec};

use super::*;
use crate::create::decode;

/// Everything a backend can have today.
const ALL: Features =
    Features { env: true, resources: true, network: &[NetworkMode::Isolated, NetworkMode::Open] };

fn mk_backend() -> Capabilities {
    let lark = LarkSupport { runtime: false, broker: false };
    Capabilities { lark, contract: ContractVersion::V2, features: ALL }
}

fn spec(extra: Value) -> Result<SandboxSpec, Vec<String>> {
    let mut body = json!({"sandbox_id": "s1"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    decode(body.to_string().as_bytes(), mk_backend()).map(|checked| checked.spec).map_err(|invalid| {
        let places = invalid.detail.iter().map(|error| {
            let place: Vec<String> = error.loc.iter().map(ToString::to_string).collect();
            format!("{} {}", error.kind, place.join("."))
        });
        places.collect()
    })
}

#[allow(clippy::needless_pass_by_value)] // tables read better
fn check(extra: Value, expect: &[&str]) {
    assert_eq!(spec(extra.clone()).err().unwrap_or_default(), expect, "{extra}");
}

#[test]
fn variables_are_taken_as_they_are() {
    let spec = spec(json!({"env": {"TOKEN": "a=b\nc", "_x9": ""}})).unwrap();
    assert_eq!(spec.env["TOKEN"], "a=b\nc");
    assert_eq!(spec.env.len(), 2);
    check(json!({"env": null}), &[]);
}

#[test]
fn wrong_variables_are_named_and_never_repeated() {
    check(
        json!({"env": {"A B": "x", "9": "x", "": "x", "STOCKADE_KEY": "x", "N": 1, "Z": "a\u{0}b"}}),
        &[
            "string_pattern_mismatch body.env.",
            "string_pattern_mismatch body.env.9",
            "string_pattern_mismatch body.env.A B",
            "string_type body.env.N",
            "value_error body.env.STOCKADE_KEY",
            "value_error body.env.Z",
        ],
    );
    check(json!({"env": [1]}), &["model_attributes_type body.env"]);
    check(json!({"env": {"A": "x".repeat(MAX_ENVIRONMENT)}}), &["too_long body.env"]);
    let many: serde_json::Map<_, _> = (0..129).map(|n| (format!("V{n}"), json!(""))).collect();
    check(json!({ "env": many }), &["too_long body.env"]);
    let body = json!({"sandbox_id": "s1", "env": {"A B": "s3cret"}}).to_string();
    let invalid = decode(body.as_bytes(), mk_backend()).unwrap_err();
    assert!(!serde_json::to_string(&invalid).unwrap().contains("s3cret"));
}

#[test]
fn limits_are_quantities() {
    let resources = json!({"cpu": {"request": "250m", "limit": 2}, "memory": {"limit": "1.5Gi"}});
    let spec = spec(json!({ "resources": resources })).unwrap();
    assert_eq!(spec.resources.cpu, Amount { request: Some(Millicores(250)), limit: Some(Millicores(2000)) });
    assert_eq!(spec.resources.memory.limit, Some(Bytes(3 << 29)));
    assert_eq!(spec.resources.ephemeral_storage, Amount::default());
}

#[test]
fn a_limit_that_no_sandbox_can_run_with_is_wrong_whatever_it_limits() {
    check(
        json!({"resources": {
            "cpu": {"limit": "1m"}, "memory": {"limit": "16Mi"}, "ephemeral_storage": {"limit": "1k"},
        }}),
        &[
            "value_error body.resources.cpu.limit",
            "value_error body.resources.memory.limit",
            "value_error body.resources.ephemeral_storage.limit",
        ],
    );
    // Little may be set aside, and be asked for in bytes.
    let least =
        json!({"memory": {"request": "1Mi", "limit": "32Mi"}, "ephemeral_storage": {"limit": 1_048_576}});
    check(json!({ "resources": least }), &[]);
}

#[test]
fn wrong_limits_are_named() {
    check(
        json!({"resources": {
            "cpu": {"request": "2", "limit": "1"}, "memory": {"limit": "much", "burst": 1}, "gpu": {"limit": 1},
            "ephemeral_storage": "1Gi",
        }}),
        &[
            "extra_forbidden body.resources.gpu",
            "value_error body.resources.cpu.request",
            "extra_forbidden body.resources.memory.burst",
            "value_error body.resources.memory.limit",
            "model_attributes_type body.resources.ephemeral_storage",
        ],
    );
}

#[test]
fn a_policy_has_a_mode() {
    let network = json!({"mode": "open", "allow": ["10.0.0.0/8:443", ":8080"]});
    let spec = spec(json!({ "network": network })).unwrap();
    assert_eq!(spec.network.mode, Some(NetworkMode::Open));
    assert_eq!(spec.network.allow.len(), 2);
    check(json!({"network": {}}), &["missing body.network.mode"]);
    check(json!({"network": {"mode": "shut"}}), &["enum body.network.mode"]);
    check(json!({"network": {"mode": "allowlist"}}), &["not_supported body.network.mode"]);
    check(
        json!({"network": {"mode": "isolated", "allow": ["10.0.0.0/8"]}}),
        &["value_error body.network.allow"],
    );
    check(
        json!({"network": {"mode": "open", "allow": ["example.com", "10.0.0.1/8", 7], "deny": []}}),
        &[
            "extra_forbidden body.network.deny",
            "value_error body.network.allow.0",
            "value_error body.network.allow.1",
            "string_type body.network.allow.2",
        ],
    );
    check(
        json!({"network": {"mode": "open", "allow": vec!["10.0.0.0/8"; 65]}}),
        &["too_long body.network.allow"],
    );
}

#[test]
fn the_client_s_own_form_of_them_can_be_read_back() {
    let sent = crate::CreateSandbox {
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        resources: Some(ResourceRequest {
            memory: QuantityPair { request: None, limit: Some("64Mi".into()) },
            ..ResourceRequest::default()
        }),
        network: Some(NetworkRequest { mode: "isolated".into(), allow: vec![] }),
        ..crate::CreateSandbox::new("s1")
    };
    let spec = decode(&serde_json::to_vec(&sent).unwrap(), mk_backend()).unwrap().spec;
    assert_eq!(spec.env["A"], "b");
    assert_eq!(spec.resources.memory.limit, Some(Bytes(64 << 20)));
    assert_eq!(spec.network.mode, Some(NetworkMode::Isolated));
}
