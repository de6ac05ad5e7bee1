//! Settings for tests.

use std::path::PathBuf;
use std::time::Duration;

use stockade_core::ContractVersion;
use stockade_core::layout::{Skills, StorageLayout, UserData};
use stockade_core::path::HostPath;

use crate::settings::{KubernetesSettings, LarkImages, ServiceType};

/// Settings under this contract: base `base`, namespace `deer-flow`, NodePorts at `node`.
#[must_use]
pub fn settings(contract: ContractVersion, base: &HostPath) -> KubernetesSettings {
    KubernetesSettings {
        namespace: "deer-flow".to_owned(),
        image: "sandbox:dev".to_owned(),
        agent_image: None,
        inject_agent: false,
        container_port: 8080,
        service_type: ServiceType::NodePort,
        node_host: "node".to_owned(),
        kubeconfig: PathBuf::from("/nonexistent"),
        kubeconfig_is_set: true,
        api_server: None,
        storage: StorageLayout {
            base: base.clone(),
            extra_mount_base: Some(base.clone()),
            skills: Skills::Views,
            user_data: match contract {
                ContractVersion::V1 => UserData::Threads(base.join(&["threads"])),
                ContractVersion::V2 => UserData::Base,
            },
            contract,
        },
        lark: LarkImages::default(),
        hardening: false,
        delete_grace: Duration::from_secs(5),
        create_wait: Duration::ZERO,
    }
}
