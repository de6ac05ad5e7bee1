//! The whole way from environment and request to manifests, against recorded ones.
//!
//! `reference/` is the reference provisioner's own output under contract 1, field for field. Where we differ,
//! we differ on purpose: [`deliberate_differences`] is the one list of it. `own/` is our output for the other
//! generations and for DeerFlow's real list of mounts, made by this test with `STOCKADE_UPDATE_GOLDEN=1` and
//! read by a person before it is committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stockade_core::backend::{Capabilities, Features};

use crate::settings::{BackendSettings, Overrides, Settings, Surroundings};

/// The Pod and the Service of an environment and a request, as they would be sent.
fn manifests(environment: &Value, request: &Value, extra: &[(&str, &str)]) -> (Value, Value) {
    let mut variables: HashMap<String, String> = environment
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    variables.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let lookup = |name: &str| variables.get(name).map(Into::into);
    let read_file = |_: &std::path::Path| unreachable!("no variable names a file");
    let surroundings = Surroundings { variable: &lookup, read_file: &read_file, is_root: true };
    let BackendSettings::Kubernetes(settings) =
        Settings::load(&surroundings, Overrides::default()).unwrap().backend
    else {
        panic!("the reference knows Kubernetes alone");
    };
    let backend = Capabilities {
        lark: settings.lark.support(),
        contract: settings.storage.contract,
        features: Features::default(),
    };
    let spec = stockade_api::create::decode(request.to_string().as_bytes(), backend).unwrap().spec;
    let mounts = settings.storage.resolve(&spec, settings.lark.support()).unwrap();
    let pod = stockade_kubernetes::manifest::pod(&settings, &spec, &mounts);
    let service = stockade_kubernetes::manifest::service(&settings, &spec.id, "pod-uid");
    (serde_json::to_value(pod).unwrap(), serde_json::to_value(service).unwrap())
}

/// Everything in which our objects differ from the reference's: taken out of ours, or put into theirs.
fn deliberate_differences(ours: &mut Value, theirs: &mut Value) {
    for manifest in [&mut *ours, &mut *theirs] {
        for kind in ["pod", "service"] {
            let object = manifest[kind].as_object_mut().unwrap();
            object.remove("apiVersion");
            object.remove("kind");
        }
    }
    // Identity, contract and mount signature are recorded with the Pod.
    let pod = &mut ours["pod"];
    let annotations = pod["metadata"].as_object_mut().unwrap().remove("annotations").unwrap();
    assert_eq!(annotations.as_object().unwrap().len(), 4);
    // The readiness probe begins at once and asks every second.
    let readiness = &mut theirs["pod"]["spec"]["containers"][0]["readinessProbe"];
    readiness.as_object_mut().unwrap().remove("initialDelaySeconds");
    readiness["periodSeconds"] = json!(1);
    // The Service is the Pod's, and leads to it before a probe has succeeded.
    let service = &mut ours["service"];
    let owners = service["metadata"].as_object_mut().unwrap().remove("ownerReferences").unwrap();
    assert_eq!(owners[0]["uid"], "pod-uid");
    let early = service["spec"].as_object_mut().unwrap().remove("publishNotReadyAddresses");
    assert_eq!(early, Some(json!(true)));
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_manifest_is_the_references_but_for_the_deliberate_differences() {
    let mut count = 0;
    for entry in std::fs::read_dir(directory("reference")).unwrap() {
        let path = entry.unwrap().path();
        let golden = read(&path);
        let contract = [("MOUNT_CONTRACT_VERSION", "1")];
        let (pod, service) = manifests(&golden["environment"], &golden["request"], &contract);
        let mut ours = json!({ "pod": pod, "service": service });
        let mut theirs = json!({ "pod": golden["pod"], "service": golden["service"] });
        deliberate_differences(&mut ours, &mut theirs);
        assert_eq!(ours, theirs, "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 8);
}

/// Name, environment and request of each golden of our own.
fn own_cases() -> Vec<(&'static str, Value, Value)> {
    let g2 = json!({ "DEER_FLOW_HOST_BASE_DIR": "/srv/deer-flow", "SANDBOX_IMAGE": "sandbox:dev" });
    let g0 = json!({
        "SKILLS_HOST_PATH": "/srv/skills", "THREADS_HOST_PATH": "/srv/threads", "SANDBOX_IMAGE": "sandbox:dev",
    });
    let mount = |host: &str, container: &str, read_only: bool| {
        json!({
            "host_path": format!("/srv/deer-flow/users/alice/{host}"), "container_path": container,
            "read_only": read_only,
        })
    };
    let lark = |name: &str| format!("integrations/lark-cli/{name}");
    let real_list = json!([
        mount("threads/t1/acp-workspace", "/mnt/acp-workspace", true),
        mount("skills_view/custom", "/mnt/skills/custom", true),
        mount("skills_view/integrations", "/mnt/skills/integrations", true),
        mount(&lark("config"), "/mnt/integrations/lark-cli/config", true),
        mount(&lark("config/locks"), "/mnt/integrations/lark-cli/config/locks", false),
        mount(&lark("data"), "/mnt/integrations/lark-cli/data", false),
        mount(&lark("runtime"), "/mnt/integrations/lark-cli/runtime", true),
        mount("threads/t1/user-data/.upload-conversions", "/mnt/user-data/.upload-conversions", true),
    ]);
    let alice = json!({ "sandbox_id": "1a2b3c4d", "thread_id": "t1", "user_id": "alice" });
    let mut with_mounts = alice.clone();
    with_mounts["extra_mounts"] = real_list;
    let mut hardened = g2.clone();
    hardened["SANDBOX_HARDENING"] = json!("true");
    let mut injected = g2.clone();
    injected["SANDBOX_IMAGE"] = json!("python:3.12-slim");
    injected["SANDBOX_CONTAINER_PORT"] = json!("9090");
    injected["SANDBOX_INJECT_AGENT"] = json!("true");
    injected["SANDBOX_AGENT_IMAGE"] = json!("agent:dev");
    let mut own_image = g2.clone();
    own_image["SANDBOX_IMAGE"] = json!("stockade-sandbox:1");
    own_image["SANDBOX_AGENT_IMAGE"] = json!("stockade-sandbox:1");
    let mut own_image_with_claims = own_image.clone();
    own_image_with_claims["USERDATA_PVC_NAME"] = json!("data");
    let mut injected_hardened_lark = injected.clone();
    injected_hardened_lark["SANDBOX_HARDENING"] = json!("true");
    injected_hardened_lark["LARK_CLI_BROKER_IMAGE"] = json!("lark:broker");
    let mut with_broker = with_mounts.clone();
    with_broker["provision_lark_cli_broker"] = json!(true);
    let mut windows = g2.clone();
    windows["DEER_FLOW_HOST_BASE_DIR"] = json!("C:\\Users\\me\\deer-flow");
    let mut claims = g2.clone();
    claims["USERDATA_PVC_NAME"] = json!("data");
    claims["SKILLS_PVC_NAME"] = json!("skills");
    claims["SKILLS_PVC_SUBPATH_TEMPLATE"] = json!("users/{user_id}/skills");
    vec![
        ("g0", g0, json!({ "sandbox_id": "1a2b3c4d", "thread_id": "t1" })),
        ("g2", g2.clone(), alice.clone()),
        ("g2-real-mount-list", g2, with_mounts.clone()),
        ("g2-claims-real-mount-list", claims, with_mounts),
        ("g2-hardened", hardened, alice.clone()),
        ("g2-injected", injected, alice.clone()),
        ("g2-injected-hardened-broker", injected_hardened_lark, with_broker),
        ("g2-own-image", own_image, alice.clone()),
        ("g2-own-image-claims", own_image_with_claims, alice.clone()),
        ("g2-windows", windows, alice),
    ]
}

#[test]
fn our_own_manifests_change_only_on_purpose() {
    let update = std::env::var_os("STOCKADE_UPDATE_GOLDEN").is_some();
    for (name, environment, request) in own_cases() {
        let (pod, service) = manifests(&environment, &request, &[]);
        let ours = json!({ "environment": environment, "request": request, "pod": pod, "service": service });
        let path = directory("own").join(format!("{name}.json"));
        if update {
            std::fs::write(&path, format!("{ours:#}\n")).unwrap();
        }
        assert_eq!(ours, read(&path), "{name}: run with STOCKADE_UPDATE_GOLDEN=1 and read what changed");
    }
}

/// Two mounts at one place are refused by the API server, whichever way they came about.
#[test]
fn no_manifest_mounts_two_things_at_one_place() {
    for (name, environment, request) in own_cases() {
        let (pod, _) = manifests(&environment, &request, &[]);
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        let mut places: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        places.sort_unstable();
        let count = places.len();
        places.dedup();
        assert_eq!(places.len(), count, "{name}");
    }
}
