use k8s_openapi::api::core::v1::ProjectedVolumeSource;
use stockade_core::mount::RequestedMount;
use stockade_core::path::HostPath;
use stockade_core::{SandboxId, ThreadId, UserId};

use super::*;
use crate::testing::settings;

fn mk_spec() -> SandboxSpec {
    let mount = |name: &str, target: &str| RequestedMount {
        host_path: format!("/srv/df/{name}"),
        container_path: target.into(),
        read_only: true,
    };
    let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
    spec.extra_mounts = vec![mount("a", "/mnt/acp-workspace"), mount("b", "/mnt/skills/integrations")];
    spec
}

fn mk_pod(spec: &SandboxSpec) -> Pod {
    mk_pod_with_agent_of(spec, None)
}

fn mk_pod_with_agent_of(spec: &SandboxSpec, agent_image: Option<&str>) -> Pod {
    let mut settings = settings(V2, &HostPath::new("/srv/df").unwrap());
    settings.agent_image = agent_image.map(str::to_owned);
    settings.inject_agent = agent_image.is_some();
    let mounts = settings.storage.resolve(spec, settings.lark.support()).unwrap();
    let mut pod = crate::manifest::pod(&settings, spec, &mounts);
    pod.metadata.uid = Some("u1".into());
    pod.metadata.resource_version = Some("1".into());
    pod
}

/// What the API server adds to every Pod.
fn inject_service_account(pod: &mut Pod) {
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes.as_mut().unwrap().push(Volume {
        name: "kube-api-access-x".into(),
        projected: Some(ProjectedVolumeSource::default()),
        ..Volume::default()
    });
    for container in &mut spec.containers {
        container.volume_mounts.as_mut().unwrap().push(VolumeMount {
            name: "kube-api-access-x".into(),
            mount_path: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

fn verdict(live: &Pod, spec: &SandboxSpec, contract: ContractVersion) -> Result<(), Conflict> {
    check(live, &mk_pod(spec), spec, contract)
}

const V2: ContractVersion = ContractVersion::V2;

#[test]
fn a_pod_is_the_same_after_the_api_server_added_its_own() {
    let mut live = mk_pod(&mk_spec());
    inject_service_account(&mut live);
    assert_eq!(verdict(&live, &mk_spec(), V2), Ok(()));
}

#[test]
fn what_is_injected_over_something_of_ours_counts() {
    let mut live = mk_pod(&mk_spec());
    inject_service_account(&mut live);
    let mounts = live.spec.as_mut().unwrap().containers[0].volume_mounts.as_mut().unwrap();
    mounts.last_mut().unwrap().mount_path = "/mnt/user-data/x".into();
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));
}

#[test]
fn a_directory_of_the_node_that_nobody_asked_for_is_a_conflict() {
    let mut live = mk_pod(&mk_spec());
    let spec = live.spec.as_mut().unwrap();
    let volume = spec.volumes.as_ref().unwrap()[0].name.clone();
    let extra = VolumeMount { name: volume, mount_path: "/host".into(), ..VolumeMount::default() };
    spec.containers[0].volume_mounts.as_mut().unwrap().push(extra);
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));
}

#[test]
fn the_order_of_the_request_does_not_matter() {
    let mut reversed = mk_spec();
    reversed.extra_mounts.reverse();
    assert_eq!(verdict(&mk_pod(&mk_spec()), &reversed, V2), Ok(()));
}

#[test]
fn another_user_is_told_from_another_thread() {
    let mut other = mk_spec();
    other.user = UserId::new("bob").unwrap();
    assert_eq!(verdict(&mk_pod(&mk_spec()), &other, V2), Err(Conflict::User));
    let mut other = mk_spec();
    other.thread = ThreadId::new("t9").unwrap();
    assert_eq!(verdict(&mk_pod(&mk_spec()), &other, V2), Err(Conflict::Thread));
}

#[test]
fn other_mounts_are_a_conflict() {
    let mut fewer = mk_spec();
    fewer.extra_mounts.pop();
    assert_eq!(verdict(&mk_pod(&mk_spec()), &fewer, V2), Err(Conflict::Mounts));
}

#[test]
fn a_live_pod_whose_volumes_were_changed_is_a_conflict_whatever_its_annotations_say() {
    let mut live = mk_pod(&mk_spec());
    let volumes = live.spec.as_mut().unwrap().volumes.as_mut().unwrap();
    volumes[0].host_path.as_mut().unwrap().path = "/etc".into();
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));

    let mut live = mk_pod(&mk_spec());
    let mounts = live.spec.as_mut().unwrap().containers[0].volume_mounts.as_mut().unwrap();
    mounts[0].read_only = Some(false);
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));
}

#[test]
fn a_sandbox_of_an_older_provisioner_is_unverifiable_under_contract_2_and_fine_under_1() {
    let mut live = mk_pod(&mk_spec());
    live.metadata.annotations = None;
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));
    assert_eq!(verdict(&live, &mk_spec(), ContractVersion::V1), Ok(()));
}

#[test]
fn under_contract_1_identity_counts_where_it_was_recorded() {
    let mut other = mk_spec();
    other.user = UserId::new("bob").unwrap();
    assert_eq!(verdict(&mk_pod(&mk_spec()), &other, ContractVersion::V1), Err(Conflict::User));
}

#[test]
fn somebody_elses_pod_of_our_name_is_a_conflict() {
    let mut live = mk_pod(&mk_spec());
    live.metadata.labels = None;
    assert_eq!(verdict(&live, &mk_spec(), ContractVersion::V1), Err(Conflict::Mounts));
}

#[test]
fn how_the_agent_comes_in_does_not_matter() {
    let (with, without) = (mk_pod_with_agent_of(&mk_spec(), Some("agent:1")), mk_pod(&mk_spec()));
    let spec = mk_spec();
    assert_eq!(check(&with, &without, &spec, V2), Ok(()));
    assert_eq!(check(&without, &with, &spec, V2), Ok(()));
}

#[test]
fn a_directory_of_the_node_in_the_agent_s_place_is_a_conflict() {
    let mut live = mk_pod_with_agent_of(&mk_spec(), Some("agent:1"));
    let volumes = live.spec.as_mut().unwrap().volumes.as_mut().unwrap();
    let host = volumes[0].host_path.clone();
    let agent = volumes.last_mut().unwrap();
    (agent.empty_dir, agent.host_path) = (None, host);
    assert_eq!(verdict(&live, &mk_spec(), V2), Err(Conflict::Mounts));
}
