//! The objects of a sandbox, as pure functions of settings and specification.
//!
//! They equal the reference's (`crates/stockade/tests/golden/`) but for the deliberate differences that
//! `crates/stockade/tests/golden.rs` lists in one place.

mod agent;
mod lark;
mod pod;
mod service;
mod volumes;

use std::collections::BTreeMap;

use stockade_core::SandboxId;

pub(crate) use agent::AGENT_DIRECTORY;
pub(crate) use pod::SANDBOX_CONTAINER;
pub use pod::pod;
pub use service::service;

/// All our Pods and Services carry `app=deer-flow-sandbox`: what watches and lists select by.
pub(crate) const SELECTOR: &str = "app=deer-flow-sandbox";
const APP: (&str, &str) = ("app", "deer-flow-sandbox");
/// The label that holds the sandbox id; the Service selects by it.
pub(crate) const ID_LABEL: &str = "sandbox-id";

/// Who the sandbox belongs to. Annotations, because a user id is longer than a label may be.
pub(crate) const USER_ANNOTATION: &str = "stockade.dev/user-id";
/// Which conversation the sandbox belongs to.
pub(crate) const THREAD_ANNOTATION: &str = "stockade.dev/thread-id";
/// Which mount contract the sandbox was made under.
pub(crate) const CONTRACT_ANNOTATION: &str = "stockade.dev/mount-contract-version";
/// What was mounted when the sandbox was made, as `stockade_core::signature`.
pub(crate) const SIGNATURE_ANNOTATION: &str = "stockade.dev/mount-signature";

const POD_PREFIX: &str = "sandbox-";
const SERVICE_SUFFIX: &str = "-svc";

/// The name of a sandbox's Pod.
pub(crate) fn pod_name(id: &SandboxId) -> String {
    format!("{POD_PREFIX}{id}")
}

/// The name of a sandbox's Service.
pub(crate) fn service_name(id: &SandboxId) -> String {
    format!("{POD_PREFIX}{id}{SERVICE_SUFFIX}")
}

/// The sandbox a Pod of this name belongs to.
pub(crate) fn id_of_pod(name: &str) -> Option<SandboxId> {
    SandboxId::new(name.strip_prefix(POD_PREFIX)?).ok()
}

/// The sandbox a Service of this name belongs to.
pub(crate) fn id_of_service(name: &str) -> Option<SandboxId> {
    SandboxId::new(name.strip_prefix(POD_PREFIX)?.strip_suffix(SERVICE_SUFFIX)?).ok()
}

/// Whether an object with these labels is the Pod or the Service of this sandbox, and not somebody else's
/// object of the same name.
pub(crate) fn is_ours(labels: Option<&BTreeMap<String, String>>, id: &SandboxId) -> bool {
    labels.is_some_and(|labels| {
        labels.get(APP.0).is_some_and(|app| app == APP.1)
            && labels.get(ID_LABEL).is_some_and(|label| label == id.as_str())
    })
}

fn labels(id: &SandboxId) -> BTreeMap<String, String> {
    [
        APP,
        ("app.kubernetes.io/name", "deer-flow"),
        ("app.kubernetes.io/component", "sandbox"),
        (ID_LABEL, id.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_sandbox() {
        let id = SandboxId::new("a-svc").unwrap();
        assert_eq!(id_of_pod(&pod_name(&id)).as_ref(), Some(&id));
        assert_eq!(id_of_service(&service_name(&id)).as_ref(), Some(&id));
        assert_eq!(id_of_pod("other"), None);
        assert_eq!(id_of_service("sandbox-x"), None);
    }

    #[test]
    fn an_object_of_our_name_without_our_labels_is_not_ours() {
        let id = SandboxId::new("a").unwrap();
        assert!(is_ours(Some(&labels(&id)), &id));
        assert!(!is_ours(None, &id));
        assert!(!is_ours(Some(&labels(&SandboxId::new("b").unwrap())), &id));
    }
}
