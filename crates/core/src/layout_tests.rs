use super::*;
use crate::id::SandboxId;
use crate::mount::RequestedMount;
use crate::spec::LarkRequest;

const NO_LARK: LarkSupport = LarkSupport { runtime: false, broker: false };
const ALL_LARK: LarkSupport = LarkSupport { runtime: true, broker: true };

fn mk_layout(user_data: UserData) -> StorageLayout {
    let base = HostPath::new("/srv/df").unwrap();
    StorageLayout {
        base: base.clone(),
        extra_mount_base: Some(base),
        skills: Skills::Views,
        contract: if user_data == UserData::Base { ContractVersion::V2 } else { ContractVersion::V1 },
        user_data,
    }
}

fn mk_spec(mounts: &[(&str, &str, bool)]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
    spec.user = UserId::new("alice").unwrap();
    spec.thread = ThreadId::new("t1").unwrap();
    spec.extra_mounts = mounts
        .iter()
        .map(|(host_path, container_path, read_only)| RequestedMount {
            host_path: (*host_path).into(),
            container_path: (*container_path).into(),
            read_only: *read_only,
        })
        .collect();
    spec
}

fn targets(plan: &MountPlan) -> Vec<&str> {
    plan.mounts.iter().map(|mount| mount.target.as_str()).collect()
}

#[test]
fn a_mount_of_the_skills_view_that_is_there_already_is_dropped() {
    let custom = ("/srv/df/users/alice/./skills_view/custom/", "/mnt/skills/custom", true);
    let plan = mk_layout(UserData::Base).resolve(&mk_spec(&[custom]), NO_LARK).unwrap();
    assert_eq!(
        targets(&plan),
        ["/mnt/skills/public", "/mnt/skills/custom", "/mnt/skills/legacy", "/mnt/user-data"]
    );
}

#[test]
fn another_source_for_the_skills_view_is_refused() {
    let custom = ("/srv/df/users/bob/skills_view/custom", "/mnt/skills/custom", true);
    let error = mk_layout(UserData::Base).resolve(&mk_spec(&[custom]), NO_LARK).unwrap_err();
    assert!(matches!(error, MountError::TargetTaken { .. }), "{error}");
}

#[test]
fn upload_conversions_never_become_a_host_directory_of_contract_2() {
    let source = "/srv/df/users/alice/threads/t1/user-data/.upload-conversions";
    let spec = mk_spec(&[(source, mount::UPLOAD_CONVERSIONS, true)]);
    let plan = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap();
    let mount = plan.mounts.last().unwrap();
    assert_eq!(
        (mount.volume.as_str(), mount.sub_path.as_deref()),
        ("user-data", Some(".upload-conversions"))
    );
    assert!(mount.read_only);
    assert_eq!(plan.volumes.len(), 4);
}

#[test]
fn nothing_below_a_writable_directory_becomes_a_host_directory() {
    let user_data = "/srv/df/users/alice/threads/t1/user-data";
    let spec = mk_spec(&[
        (&format!("{user_data}/acp"), "/mnt/acp-workspace", false),
        ("/srv/df/lark/config", mount::LARK_CONFIG, false),
        ("/srv/df/lark/config/locks", mount::LARK_LOCKS, false),
    ]);
    let plan = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap();
    let sub_paths: Vec<_> =
        plan.mounts[4..].iter().map(|mount| (mount.volume.as_str(), mount.sub_path.as_deref())).collect();
    assert_eq!(sub_paths, [("user-data", Some("acp")), ("extra-0", None), ("extra-0", Some("locks"))]);
}

#[test]
fn a_writable_directory_above_one_that_is_mounted_already_is_refused() {
    let spec = mk_spec(&[
        ("/srv/df/lark/config/locks", mount::LARK_LOCKS, false),
        ("/srv/df/lark/config", mount::LARK_CONFIG, false),
    ]);
    let error = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap_err();
    assert!(matches!(error, MountError::AboveAnother { .. }), "{error}");
}

#[test]
fn upload_conversions_of_another_thread_are_refused() {
    let source = "/srv/df/users/alice/threads/t2/user-data/.upload-conversions";
    let spec = mk_spec(&[(source, mount::UPLOAD_CONVERSIONS, true)]);
    let error = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap_err();
    assert!(matches!(error, MountError::WrongSource { .. }), "{error}");
}

#[test]
fn extra_volumes_are_numbered_as_they_are_kept() {
    let spec = mk_spec(&[
        ("/srv/df/users/alice/skills_view/custom", "/mnt/skills/custom", true),
        ("/srv/df/acp", "/mnt/acp-workspace", true),
        ("/srv/df/skills", "/mnt/skills/integrations", false),
    ]);
    let plan = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap();
    let names: Vec<_> = plan.volumes[4..].iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["extra-0", "extra-1"]);
}

#[test]
fn a_claim_holds_extra_mounts_below_its_own_base() {
    let spec = mk_spec(&[("/srv/df/users/alice/acp", "/mnt/acp-workspace", true)]);
    let plan = mk_layout(UserData::Claim("data".into())).resolve(&spec, NO_LARK).unwrap();
    assert_eq!(plan.mounts.last().unwrap().sub_path.as_deref(), Some("deer-flow/users/alice/acp"));
}

#[test]
fn the_broker_wins_and_only_it_sees_credentials() {
    let mut spec = mk_spec(&[
        ("/srv/df/lark/config", mount::LARK_CONFIG, true),
        ("/srv/df/lark/runtime", mount::LARK_RUNTIME, true),
    ]);
    spec.lark = LarkRequest { runtime: true, broker: true };
    let plan = mk_layout(UserData::Base).resolve(&spec, ALL_LARK).unwrap();
    assert_eq!(plan.lark, LarkPattern::Broker);
    assert!(!targets(&plan).contains(&mount::LARK_CONFIG));
    assert_eq!(plan.sidecar_mounts[0].target.as_str(), "/var/lark/config");
}

#[test]
fn a_pattern_that_is_not_configured_is_not_provided() {
    let mut spec = mk_spec(&[("/srv/df/lark/runtime", mount::LARK_RUNTIME, true)]);
    spec.lark = LarkRequest { runtime: true, broker: true };
    let plan = mk_layout(UserData::Base).resolve(&spec, NO_LARK).unwrap();
    assert_eq!(plan.lark, LarkPattern::None);
    assert_eq!(targets(&plan).last(), Some(&mount::LARK_RUNTIME));
}

#[test]
fn a_template_fills_user_and_thread_and_stays_in_its_volume() {
    let template = SubPathTemplate::new("skills/{user_id}/{thread_id}").unwrap();
    let filled = template.fill(&UserId::new("u").unwrap(), &ThreadId::new("t").unwrap());
    assert_eq!(filled, "skills/u/t");
    for bad in ["", "/abs", "a/../..", "{tenant}", "{user_id", "a\0b"] {
        assert!(SubPathTemplate::new(bad).is_err(), "{bad:?}");
    }
}
