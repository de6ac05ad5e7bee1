//! The containers that bring the Lark CLI into a sandbox.

use k8s_openapi::api::core::v1::{Container, EnvVar, SecurityContext, VolumeMount};
use stockade_core::layout::{LarkPattern, MountPlan};
use stockade_core::mount::LARK_RUNTIME;

use super::volumes::volume_mount;
use crate::settings::LarkImages;

/// The port of the broker sidecar, reached over the Pod's loopback.
const BROKER_URL: &str = "http://127.0.0.1:8788";

/// The init container that fills the runtime directory; `None` without a pattern.
pub(super) fn init_container(images: &LarkImages, pattern: LarkPattern) -> Option<Container> {
    let (name, image, args) = match pattern {
        LarkPattern::None => return None,
        LarkPattern::Runtime => ("lark-cli-init", images.init.clone(), None),
        LarkPattern::Broker => {
            let args = vec!["install-shim".to_owned(), LARK_RUNTIME.to_owned()];
            ("lark-cli-shim-init", images.broker.clone(), Some(args))
        }
    };
    Some(Container {
        name: name.to_owned(),
        image,
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args,
        env: Some(vec![variable("LARK_CLI_RUNTIME_DEST", LARK_RUNTIME)]),
        security_context: Some(unprivileged()),
        volume_mounts: Some(vec![VolumeMount {
            name: "lark-cli-runtime".to_owned(),
            mount_path: LARK_RUNTIME.to_owned(),
            read_only: Some(false),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    })
}

/// The sidecar that holds the credentials; `None` unless the broker is in use.
pub(super) fn sidecar(images: &LarkImages, plan: &MountPlan) -> Option<Container> {
    if plan.lark != LarkPattern::Broker {
        return None;
    }
    let mut env = vec![
        variable("LARKSUITE_CLI_CONFIG_DIR", "/var/lark/config"),
        variable("LARKSUITE_CLI_DATA_DIR", "/var/lark/data"),
    ];
    if let Some(deny) = &images.deny_subcommands {
        env.push(variable("DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS", deny));
    }
    Some(Container {
        name: "lark-cli-broker".to_owned(),
        image: images.broker.clone(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec!["serve".to_owned()]),
        env: Some(env),
        security_context: Some(unprivileged()),
        volume_mounts: Some(plan.sidecar_mounts.iter().map(volume_mount).collect()),
        ..Container::default()
    })
}

/// What the sandbox must know to reach the broker.
pub(super) fn sandbox_env(pattern: LarkPattern) -> Option<Vec<EnvVar>> {
    (pattern == LarkPattern::Broker).then(|| vec![variable("DEERFLOW_LARK_BROKER_URL", BROKER_URL)])
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn unprivileged() -> SecurityContext {
    SecurityContext {
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        ..SecurityContext::default()
    }
}
