//! One sandbox, and all of them, as answers.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stockade_core::ContractVersion;
use utoipa::ToSchema;

/// A sandbox as answers show it.
///
/// Under contract 1 the three fields of contract 2 are left out, not null: callers tell the generations
/// apart by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sandbox<'a> {
    /// Names the sandbox.
    #[schema(value_type = String, example = "1a2b3c4d")]
    pub sandbox_id: Cow<'a, str>,
    /// Where it is reached.
    #[schema(value_type = String, example = "http://host.docker.internal:31234")]
    pub sandbox_url: Cow<'a, str>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown` or `NotFound`; `Running` alone is alive.
    #[schema(value_type = String, example = "Running")]
    pub status: Cow<'a, str>,
    /// The person it belongs to; null when that was not recorded; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub user_id: Option<Option<Cow<'a, str>>>,
    /// The conversation it belongs to; null when that was not recorded; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub thread_id: Option<Option<Cow<'a, str>>>,
    /// The mount contract it was made under; null when not recorded; left out under contract 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u8>)]
    pub mount_contract_version: Option<Option<u8>>,
    /// Whether it answers its health check.
    pub ready: bool,
    /// Why it is not ready, in one word.
    #[schema(value_type = Option<String>, example = "ImagePullBackOff")]
    pub reason: Option<Cow<'a, str>>,
    /// The same as a sentence that says what to do.
    #[schema(value_type = Option<String>)]
    pub message: Option<Cow<'a, str>>,
    /// When it was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// Bytes that its files outside its mounts took when they were last measured; left out where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disk_used_bytes: Option<u64>,
    /// The kind of backend it runs on.
    #[schema(value_type = String, example = "kubernetes")]
    pub backend: Cow<'a, str>,
}

/// A field that is there, even as null.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What an answer depends on besides the sandbox itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The contract the server serves.
    pub contract: ContractVersion,
    /// The kind of its backend.
    pub backend: &'static str,
}

impl View {
    /// A field of contract 2: left out below it.
    pub(crate) fn since_v2<T>(self, value: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
        (self.contract >= ContractVersion::V2).then(value)
    }
}

impl<'a> Sandbox<'a> {
    /// The answer for a sandbox.
    #[must_use]
    pub fn of(sandbox: &'a stockade_core::Sandbox, view: View) -> Self {
        let identity = sandbox.identity.as_ref();
        Self {
            sandbox_id: sandbox.id.as_str().into(),
            sandbox_url: sandbox.url.as_str().into(),
            status: sandbox.status.as_str().into(),
            user_id: view.since_v2(|| identity.map(|identity| identity.user.as_str().into())),
            thread_id: view.since_v2(|| identity.map(|identity| identity.thread.as_str().into())),
            mount_contract_version: view.since_v2(|| sandbox.contract.map(ContractVersion::number)),
            ready: sandbox.ready,
            reason: sandbox.reason.as_deref().map(Cow::from),
            message: sandbox.message.as_deref().map(Cow::from),
            created_at: sandbox.created_at,
            disk_used_bytes: sandbox.disk_used,
            backend: view.backend.into(),
        }
    }
}

/// All sandboxes that have an address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct SandboxList {
    /// In the order of their ids.
    #[schema(value_type = Vec<Sandbox<'_>>)]
    pub sandboxes: Vec<Sandbox<'static>>,
    /// How many there are.
    pub count: usize,
}

/// The list as it is written: one sandbox after the other, without a copy of any.
#[derive(Debug, Clone, Copy)]
pub struct ListOf<'a> {
    sandboxes: &'a [Arc<stockade_core::Sandbox>],
    view: View,
}

impl<'a> ListOf<'a> {
    /// The list of these.
    #[must_use]
    pub fn new(sandboxes: &'a [Arc<stockade_core::Sandbox>], view: View) -> Self {
        Self { sandboxes, view }
    }
}

impl Serialize for ListOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_struct("SandboxList", 2)?;
        list.serialize_field("sandboxes", &Members(*self))?;
        list.serialize_field("count", &self.sandboxes.len())?;
        list.end()
    }
}

struct Members<'a>(ListOf<'a>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.sandboxes.iter().map(|sandbox| Sandbox::of(sandbox, self.0.view)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use stockade_core::{Identity, SandboxId, Status, ThreadId, UserId};

    fn mk_sandbox(identity: bool) -> stockade_core::Sandbox {
        stockade_core::Sandbox {
            id: SandboxId::new("s1").unwrap(),
            url: "http://h:1".into(),
            status: Status::Pending,
            ready: false,
            reason: Some("Unschedulable".into()),
            message: None,
            created_at: Some("2026-11-01T02:03:04Z".parse().unwrap()),
            identity: identity.then(|| Identity {
                user: UserId::new("alice").unwrap(),
                thread: ThreadId::new("t1").unwrap(),
            }),
            contract: identity.then_some(ContractVersion::V2),
            disk_used: None,
        }
    }

    fn mk_view(contract: ContractVersion) -> View {
        View { contract, backend: "test" }
    }

    #[test]
    fn contract_2_says_whose_it_is() {
        let sandbox = mk_sandbox(true);
        let answer = Sandbox::of(&sandbox, mk_view(ContractVersion::V2));
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({
                "sandbox_id": "s1", "sandbox_url": "http://h:1", "status": "Pending",
                "user_id": "alice", "thread_id": "t1", "mount_contract_version": 2,
                "ready": false, "reason": "Unschedulable", "message": null,
                "created_at": "2026-11-01T02:03:04Z", "backend": "test",
            })
        );
        let back: Sandbox<'static> = serde_json::from_slice(&serde_json::to_vec(&answer).unwrap()).unwrap();
        assert_eq!(back, answer);
    }

    #[test]
    fn what_files_take_is_said_where_it_is_measured() {
        let mut sandbox = mk_sandbox(true);
        sandbox.disk_used = Some(4096);
        let answer = Sandbox::of(&sandbox, mk_view(ContractVersion::V2));
        assert_eq!(serde_json::to_value(&answer).unwrap()["disk_used_bytes"], 4096);
    }

    #[test]
    fn what_was_not_recorded_is_null_under_contract_2() {
        let sandbox = mk_sandbox(false);
        let answer = Sandbox::of(&sandbox, mk_view(ContractVersion::V2));
        let text = serde_json::to_string(&answer).unwrap();
        assert!(text.contains(r#""user_id":null,"thread_id":null,"mount_contract_version":null"#), "{text}");
        assert_eq!(serde_json::from_str::<Sandbox<'static>>(&text).unwrap(), answer);
    }

    #[test]
    fn contract_1_has_no_word_of_contract_2() {
        let sandbox = mk_sandbox(true);
        let text = serde_json::to_string(&Sandbox::of(&sandbox, mk_view(ContractVersion::V1))).unwrap();
        for key in ["user_id", "thread_id", "mount_contract_version"] {
            assert!(!text.contains(key), "{text}");
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let sandboxes = [Arc::new(mk_sandbox(true)), Arc::new(mk_sandbox(false))];
        let view = mk_view(ContractVersion::V2);
        let text = serde_json::to_vec(&ListOf::new(&sandboxes, view)).unwrap();
        let list: SandboxList = serde_json::from_slice(&text).unwrap();
        assert_eq!(list.count, 2);
        assert_eq!(list.sandboxes[1], Sandbox::of(&sandboxes[1], view));
    }
}
