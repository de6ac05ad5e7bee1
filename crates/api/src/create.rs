//! The request that makes a sandbox.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use stockade_core::backend::Capabilities;
use stockade_core::id::IdError;
use stockade_core::mount::{MAX_EXTRA_MOUNTS, RequestedMount};
use stockade_core::spec::LarkRequest;
use stockade_core::{ContractVersion, SandboxId, SandboxSpec, ThreadId, UserId};
use utoipa::ToSchema;

use crate::error::{FieldError, InvalidRequest};
use crate::extension::{self, NetworkRequest, ResourceRequest};
use crate::field::{self, Wrong};
use crate::object::Reader;

/// Makes a sandbox, or asks for the one that is there.
#[derive(Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct CreateSandbox {
    /// Names the sandbox.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,49}[a-z0-9])?$", example = "1a2b3c4d")]
    pub sandbox_id: String,
    /// The conversation it belongs to; the sandbox's own id when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub thread_id: Option<String>,
    /// The person it belongs to; `default` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9_\\-]+$", max_length = 255, nullable = false)]
    pub user_id: Option<String>,
    /// Directories beyond the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10, required = false)]
    pub extra_mounts: Vec<ExtraMount>,
    /// Accepted, without effect.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    pub include_legacy_skills: bool,
    /// Asks for the Lark CLI, installed by an init container.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    pub provision_lark_cli_runtime: bool,
    /// Asks for the Lark CLI behind a broker that holds the credentials.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    pub provision_lark_cli_broker: bool,
    /// Refuse (409) unless the server serves this mount contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_mount_contract_version: Option<i64>,
    /// Variables of the sandbox's environment. At most 128, together 64 KiB; those that begin with
    /// `STOCKADE_` are its own. On the embedded backend.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub env: BTreeMap<String, String>,
    /// How much of the machine it may use. On the embedded backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequest>,
    /// What it may reach. On the embedded backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRequest>,
}

impl fmt::Debug for CreateSandbox {
    /// Without the values of the environment: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSandbox")
            .field("sandbox_id", &self.sandbox_id)
            .field("thread_id", &self.thread_id)
            .field("user_id", &self.user_id)
            .field("extra_mounts", &self.extra_mounts)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("resources", &self.resources)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
fn is_false(value: &bool) -> bool {
    !*value
}

impl CreateSandbox {
    /// A request for a sandbox with nothing beyond the usual.
    #[must_use]
    pub fn new(sandbox_id: impl Into<String>) -> Self {
        Self { sandbox_id: sandbox_id.into(), ..Self::default() }
    }
}

/// A directory that a caller wants in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExtraMount {
    /// A directory on the node, below the server's base directory.
    pub host_path: String,
    /// Where it appears; one of a fixed set of places.
    pub container_path: String,
    /// Whether the sandbox may not write to it.
    #[schema(required = false)]
    pub read_only: bool,
}

/// A create request whose fields are all good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCreate {
    /// The sandbox that is asked for.
    pub spec: SandboxSpec,
    /// The mount contract the caller insists on; `None` where the backend's contract does not know that field.
    pub required_mount_contract_version: Option<i64>,
}

/// Fields of the design that this version does not have. Sent with a value, they are an error: a
/// sandbox without the limits or the network policy that was asked for must not come to be.
const NOT_YET: [&str; 5] = ["template", "image", "labels", "ttl_seconds", "idle_ttl_seconds"];

/// Reads a request body for a backend that can do this.
///
/// # Errors
/// Every field that is wrong, at once. Never panics, whatever the bytes.
pub fn decode(body: &[u8], backend: Capabilities) -> Result<CheckedCreate, InvalidRequest> {
    let nothing = |error: FieldError| InvalidRequest::new(vec![error]);
    if body.is_empty() {
        return Err(nothing(Wrong::missing().at(vec!["body".into()], &Value::Null)));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| nothing(syntax_error(body, &error)))?;
    let Value::Object(members) = &value else {
        return Err(nothing(Wrong::not_an_object().at(vec!["body".into()], &value)));
    };
    let mut reader = Reader { whole: &value, members, path: vec!["body".into()], errors: Vec::new() };
    let checked = read(&mut reader, backend);
    let errors = reader.errors;
    checked.filter(|_| errors.is_empty()).ok_or_else(|| InvalidRequest::new(errors))
}

fn read(reader: &mut Reader<'_>, backend: Capabilities) -> Option<CheckedCreate> {
    let id = reader.required("sandbox_id", |value| {
        SandboxId::new(field::text(value)?).map_err(|_| Wrong::pattern(SandboxId::PATTERN))
    });
    let thread = reader.optional("thread_id", |value| {
        if value.is_null() {
            return Ok(None);
        }
        ThreadId::new(field::text(value)?).map(Some).map_err(|_| Wrong::pattern(ThreadId::PATTERN))
    });
    let user = reader.optional("user_id", |value| {
        UserId::new(field::text(value)?).map_err(|error| match error {
            IdError::Length { max, actual } if actual > max => Wrong::too_long(max),
            _ => Wrong::pattern(UserId::PATTERN),
        })
    });
    let extra_mounts = mounts(reader);
    reader.optional("include_legacy_skills", field::boolean);
    let runtime = reader.optional("provision_lark_cli_runtime", field::boolean);
    let broker = reader.optional("provision_lark_cli_broker", field::boolean);
    let version = reader.optional("required_mount_contract_version", |value| {
        // Contract 1 does not know the field, whatever is in it.
        let unknown = backend.contract < ContractVersion::V2;
        if value.is_null() || unknown { Ok(None) } else { field::integer(value).map(Some) }
    });
    let env = extension::environment(reader, backend.features);
    let resources = extension::resources(reader, backend.features);
    let network = extension::network(reader, backend.features);
    for name in NOT_YET {
        reader.optional(name, |value| if value.is_null() { Ok(()) } else { Err(Wrong::not_supported(name)) });
    }
    let id = id?;
    Some(CheckedCreate {
        spec: SandboxSpec {
            thread: thread.flatten().unwrap_or_else(|| ThreadId::from(&id)),
            user: user.unwrap_or_default(),
            extra_mounts,
            lark: LarkRequest { runtime: runtime.unwrap_or(false), broker: broker.unwrap_or(false) },
            env,
            resources,
            network,
            id,
        },
        required_mount_contract_version: version.flatten(),
    })
}

/// The list as it is; how many there may be and what may be in them is [`stockade_core::mount`]'s to say, in the
/// contract's words.
fn mounts(reader: &mut Reader<'_>) -> Vec<RequestedMount> {
    let Some(items) = reader.optional("extra_mounts", |value| {
        value.as_array().ok_or_else(|| Wrong::new("list_type", "Input should be a valid list"))
    }) else {
        return Vec::new();
    };
    // One more than there may be is enough for the answer that there are too many, and bounds what is read.
    let items = &items[..items.len().min(MAX_EXTRA_MOUNTS + 1)];
    let mut mounts = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let mut path = reader.loc("extra_mounts");
        path.push(position.into());
        let Value::Object(members) = item else {
            reader.errors.push(Wrong::not_an_object().at(path, item));
            continue;
        };
        let mut inner = Reader { whole: item, members, path, errors: Vec::new() };
        mounts.extend(read_mount(&mut inner));
        reader.errors.append(&mut inner.errors);
    }
    mounts
}

fn read_mount(reader: &mut Reader<'_>) -> Option<RequestedMount> {
    let host_path = reader.required("host_path", |value| field::text(value).map(str::to_owned));
    let container_path = reader.required("container_path", |value| field::text(value).map(str::to_owned));
    let read_only = reader.optional("read_only", field::boolean).unwrap_or(false);
    Some(RequestedMount { host_path: host_path?, container_path: container_path?, read_only })
}

/// FastAPI's answer to a body that is not JSON. The position is in bytes.
fn syntax_error(body: &[u8], error: &serde_json::Error) -> FieldError {
    let line_start: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let position = (line_start + error.column().saturating_sub(1)).min(body.len());
    Wrong::new("json_invalid", "JSON decode error")
        .with(json!({ "error": error.to_string() }))
        .at(vec!["body".into(), position.into()], &json!({}))
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
