//! What a server can provide.

use serde::{Deserialize, Serialize};
use stockade_core::ContractVersion;
use utoipa::ToSchema;

/// What a server can provide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// The Lark CLI can be installed by an init container.
    pub lark_cli_init_image: bool,
    /// The Lark CLI can run behind a broker.
    pub lark_cli_broker_image: bool,
    /// The mount contract; left out below 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 2)]
    pub mount_contract_version: Option<u8>,
}

impl From<stockade_core::backend::Capabilities> for Capabilities {
    fn from(capabilities: stockade_core::backend::Capabilities) -> Self {
        let contract = capabilities.contract;
        Self {
            lark_cli_init_image: capabilities.lark.runtime,
            lark_cli_broker_image: capabilities.lark.broker,
            mount_contract_version: (contract >= ContractVersion::V2).then(|| contract.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::backend::Features;
    use stockade_core::layout::LarkSupport;

    fn check(contract: ContractVersion, expect: &str) {
        let lark = LarkSupport { runtime: true, broker: false };
        let wire = Capabilities::from(stockade_core::backend::Capabilities {
            lark,
            contract,
            features: Features::default(),
        });
        assert_eq!(serde_json::to_string(&wire).unwrap(), expect);
    }

    #[test]
    fn the_version_is_said_from_2_on() {
        let v2 = r#"{"lark_cli_init_image":true,"lark_cli_broker_image":false,"mount_contract_version":2}"#;
        check(ContractVersion::V2, v2);
        check(ContractVersion::V1, r#"{"lark_cli_init_image":true,"lark_cli_broker_image":false}"#);
    }
}
