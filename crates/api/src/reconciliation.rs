//! The truth about one sandbox.

use serde::{Deserialize, Serialize};
use stockade_core::ContractVersion;
use utoipa::ToSchema;

use crate::echo;
use crate::sandbox::{View, present};

/// Whether a sandbox is there, from the backend itself. Callers delete by this answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reconciliation {
    /// The id that was asked for.
    pub sandbox_id: String,
    /// `found` or `absent`.
    #[schema(example = "found")]
    pub status: String,
    /// A stable id of the place sandboxes live in (Kubernetes: the UID of the namespace).
    pub backend_namespace: String,
    /// Differs for each sandbox ever made under one id (Kubernetes: the UID of the Pod).
    pub incarnation_id: Option<String>,
    /// Where it is reached, when it has an address.
    pub sandbox_url: Option<String>,
    /// The person it belongs to; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub user_id: Option<Option<String>>,
    /// The conversation it belongs to; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub thread_id: Option<Option<String>>,
    /// The mount contract it was made under; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u8>)]
    pub mount_contract_version: Option<Option<u8>>,
}

impl Reconciliation {
    /// The answer for an id, which need not be a good one.
    #[must_use]
    pub fn of(id: &str, truth: stockade_core::sandbox::Reconciliation, view: View) -> Self {
        let found = truth.found;
        let identity = found.as_ref().and_then(|found| found.identity.clone());
        let contract = found.as_ref().and_then(|found| found.contract);
        Self {
            sandbox_id: echo::bounded_text(id),
            status: if found.is_some() { "found" } else { "absent" }.to_owned(),
            backend_namespace: truth.backend_namespace,
            user_id: view.since_v2(|| identity.as_ref().map(|identity| identity.user.to_string())),
            thread_id: view.since_v2(|| identity.as_ref().map(|identity| identity.thread.to_string())),
            mount_contract_version: view.since_v2(|| contract.map(ContractVersion::number)),
            incarnation_id: found.as_ref().map(|found| found.incarnation.clone()),
            sandbox_url: found.and_then(|found| found.url),
        }
    }
}
