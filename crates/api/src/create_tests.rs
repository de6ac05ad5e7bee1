use proptest::prelude::*;

use stockade_core::backend::Features;
use stockade_core::layout::LarkSupport;

use super::*;

/// A backend of the present contract with these features.
fn mk_backend(features: Features) -> Capabilities {
    let lark = LarkSupport { runtime: false, broker: false };
    Capabilities { lark, contract: ContractVersion::V2, features }
}

/// What a backend without features reads.
fn read_plain(body: &[u8]) -> Result<CheckedCreate, InvalidRequest> {
    decode(body, mk_backend(Features::default()))
}

/// What is wrong with a body, as `type at.place`.
fn wrong(body: impl AsRef<[u8]>) -> Vec<String> {
    let Err(invalid) = read_plain(body.as_ref()) else { return Vec::new() };
    assert_eq!(invalid.code, "invalid_request");
    invalid
        .detail
        .iter()
        .map(|error| {
            let place: Vec<String> = error.loc.iter().map(ToString::to_string).collect();
            format!("{} {}", error.kind, place.join("."))
        })
        .collect()
}

#[allow(clippy::needless_pass_by_value)] // tables read better
fn check(body: Value, expect: &[&str]) {
    assert_eq!(wrong(body.to_string()), expect, "{body}");
}

#[test]
fn the_least_request_has_every_default() {
    let checked = read_plain(br#"{"sandbox_id":"s1"}"#).unwrap();
    assert_eq!(checked.spec, SandboxSpec::new(SandboxId::new("s1").unwrap()));
    assert_eq!(checked.spec.user.as_str(), "default");
    assert_eq!(checked.spec.thread.as_str(), "s1");
    assert_eq!(checked.required_mount_contract_version, None);
}

#[test]
fn the_client_s_own_form_can_be_read_back() {
    let sent = CreateSandbox {
        thread_id: Some("T_1".into()),
        user_id: Some("alice".into()),
        extra_mounts: vec![ExtraMount {
            host_path: "/a".into(),
            container_path: "/b".into(),
            read_only: true,
        }],
        provision_lark_cli_broker: true,
        required_mount_contract_version: Some(2),
        ..CreateSandbox::new("s1")
    };
    let checked = read_plain(&serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(checked.spec.thread.as_str(), "T_1");
    assert_eq!(checked.spec.user.as_str(), "alice");
    assert_eq!(checked.spec.extra_mounts[0].container_path, "/b");
    assert!(checked.spec.extra_mounts[0].read_only);
    assert_eq!(checked.spec.lark, LarkRequest { runtime: false, broker: true });
    assert_eq!(checked.required_mount_contract_version, Some(2));
}

#[test]
fn each_wrong_field_is_named_in_one_answer() {
    check(
        json!({
            "sandbox_id": "Bad_Id", "thread_id": "../x", "user_id": "", "extra_mounts": [1, {"host_path": 2}],
            "include_legacy_skills": "perhaps", "provision_lark_cli_runtime": null,
            "required_mount_contract_version": "two",
        }),
        &[
            "string_pattern_mismatch body.sandbox_id",
            "string_pattern_mismatch body.thread_id",
            "string_pattern_mismatch body.user_id",
            "model_attributes_type body.extra_mounts.0",
            "string_type body.extra_mounts.1.host_path",
            "missing body.extra_mounts.1.container_path",
            "bool_parsing body.include_legacy_skills",
            "bool_type body.provision_lark_cli_runtime",
            "int_parsing body.required_mount_contract_version",
        ],
    );
}

#[test]
fn ids_are_checked_before_any_backend_sees_them() {
    check(json!({}), &["missing body.sandbox_id"]);
    for bad in [json!("a".repeat(52)), json!("a\u{0}b"), json!("-a"), json!("")] {
        check(json!({ "sandbox_id": bad }), &["string_pattern_mismatch body.sandbox_id"]);
    }
    for bad in [json!(null), json!(7), json!(["s1"])] {
        check(json!({ "sandbox_id": bad }), &["string_type body.sandbox_id"]);
    }
    let user = |user: Value| json!({"sandbox_id": "s1", "user_id": user});
    check(user(json!("u".repeat(256))), &["string_too_long body.user_id"]);
    check(user(json!("a b")), &["string_pattern_mismatch body.user_id"]);
    check(user(json!(null)), &["string_type body.user_id"]);
    check(json!({"sandbox_id": "s1", "thread_id": null}), &[]);
}

#[test]
fn extra_mounts_are_a_list_and_of_a_long_one_only_what_is_needed_is_read() {
    let mounts = |mounts: Value| json!({"sandbox_id": "s1", "extra_mounts": mounts});
    let one = json!({"host_path": "/a", "container_path": "/b"});
    check(mounts(json!(null)), &["list_type body.extra_mounts"]);
    check(mounts(json!({})), &["list_type body.extra_mounts"]);
    check(mounts(json!(vec![one.clone(); 10])), &[]);
    // How many there may be is said by whoever knows the contract's words for it.
    for (sent, read) in [(11, 11), (5_000, 11)] {
        let body = mounts(json!(vec![one.clone(); sent])).to_string();
        assert_eq!(read_plain(body.as_bytes()).unwrap().spec.extra_mounts.len(), read);
    }
    let wrong_places = wrong(mounts(json!(vec![json!(1); 5_000])).to_string());
    assert_eq!(wrong_places.len(), 11, "{wrong_places:?}");
}

#[test]
fn contract_1_does_not_know_the_field_that_requires_a_contract() {
    let contract_1 = Capabilities { contract: ContractVersion::V1, ..mk_backend(Features::default()) };
    for value in [json!(2), json!("two"), json!([]), json!(null), json!(1e300)] {
        let body = json!({"sandbox_id": "s1", "required_mount_contract_version": value}).to_string();
        let checked = decode(body.as_bytes(), contract_1).unwrap();
        assert_eq!(checked.required_mount_contract_version, None, "{value}");
    }
}

#[test]
fn unknown_keys_are_ignored_and_those_of_later_versions_are_not() {
    check(json!({"sandbox_id": "s1", "colour": "red"}), &[]);
    for name in NOT_YET.into_iter().chain(["env", "resources", "network"]) {
        check(json!({"sandbox_id": "s1", name: null}), &[]);
        check(json!({"sandbox_id": "s1", name: {}}), &[&format!("not_supported body.{name}")]);
    }
}

#[test]
fn what_is_not_json_is_said_with_its_place() {
    assert_eq!(wrong(""), ["missing body"]);
    assert_eq!(wrong("[]"), ["model_attributes_type body"]);
    assert_eq!(wrong("{\"sandbox_id\": nope}"), ["json_invalid body.16"]);
    assert_eq!(wrong("{\n\"a\" 1}"), ["json_invalid body.6"]);
    assert_eq!(wrong(b"{\"sandbox_id\":\"\xff\"}"), ["json_invalid body.15"]);
    assert_eq!(wrong("[".repeat(100_000)), ["json_invalid body.127"]);
}

#[test]
fn the_last_of_two_equal_keys_wins() {
    let checked = read_plain(br#"{"sandbox_id":"a","sandbox_id":"b"}"#).unwrap();
    assert_eq!(checked.spec.id.as_str(), "b");
}

#[test]
fn a_pattern_error_looks_like_pydantic_s() {
    let invalid = read_plain(br#"{"sandbox_id":"A"}"#).unwrap_err();
    assert_eq!(
        serde_json::to_value(&invalid).unwrap(),
        json!({
            "detail": [{
                "type": "string_pattern_mismatch",
                "loc": ["body", "sandbox_id"],
                "msg": format!("String should match pattern '{}'", SandboxId::PATTERN),
                "input": "A",
                "ctx": {"pattern": SandboxId::PATTERN},
            }],
            "code": "invalid_request",
        })
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z0-9-]{1,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 12, |inner| {
        let name = prop_oneof![
            Just("sandbox_id".to_owned()),
            Just("thread_id".to_owned()),
            Just("user_id".to_owned()),
            Just("extra_mounts".to_owned()),
            Just("host_path".to_owned()),
            Just("container_path".to_owned()),
            Just("read_only".to_owned()),
            Just("required_mount_contract_version".to_owned()),
            Just("env".to_owned()),
            Just("resources".to_owned()),
            Just("memory".to_owned()),
            Just("limit".to_owned()),
            Just("network".to_owned()),
            Just("mode".to_owned()),
            Just("allow".to_owned()),
            "[a-z_]{0,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn check_answer(body: &[u8]) {
    const ALL: Features =
        Features { env: true, resources: true, network: &[stockade_core::egress::NetworkMode::Open] };
    for features in [Features::default(), ALL] {
        let Err(invalid) = decode(body, mk_backend(features)) else { continue };
        assert!(!invalid.detail.is_empty());
        let text = serde_json::to_string(&invalid).unwrap();
        assert!(text.len() < 64 * 1024, "the answer is bounded: {} bytes", text.len());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
        check_answer(&body);
    }

    #[test]
    fn no_json_makes_it_panic(body in any_json()) {
        check_answer(body.to_string().as_bytes());
    }
}
