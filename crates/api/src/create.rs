//! The request that makes a sandbox.

use serde::Serialize;
use serde_json::{Map, Value, json};
use stockade_core::id::IdError;
use stockade_core::mount::RequestedMount;
use stockade_core::spec::{LarkRequest, MAX_EXTRA_MOUNTS};
use stockade_core::{SandboxId, SandboxSpec, ThreadId, UserId};
use utoipa::ToSchema;

use crate::error::{FieldError, InvalidRequest, Loc};
use crate::field::{self, Wrong};

/// Makes a sandbox, or asks for the one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
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
    /// The mount contract the caller insists on.
    pub required_mount_contract_version: Option<i64>,
}

/// Fields of the design that this version does not have. Sent with a value, they are an error: a
/// sandbox without the limits or the network policy that was asked for must not come to be.
const NOT_YET: [&str; 8] =
    ["template", "image", "env", "resources", "labels", "ttl_seconds", "idle_ttl_seconds", "network"];

/// Reads a request body.
///
/// # Errors
/// Every field that is wrong, at once. Never panics, whatever the bytes.
pub fn decode(body: &[u8]) -> Result<CheckedCreate, InvalidRequest> {
    let nothing = |error: FieldError| InvalidRequest::new(vec![error]);
    if body.is_empty() {
        return Err(nothing(Wrong::missing().at(vec!["body".into()], &Value::Null)));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| nothing(syntax_error(body, &error)))?;
    let Value::Object(members) = &value else {
        return Err(nothing(Wrong::not_an_object().at(vec!["body".into()], &value)));
    };
    let mut reader = Reader { whole: &value, members, path: vec!["body".into()], errors: Vec::new() };
    let checked = read(&mut reader);
    let errors = reader.errors;
    checked.filter(|_| errors.is_empty()).ok_or_else(|| InvalidRequest::new(errors))
}

fn read(reader: &mut Reader<'_>) -> Option<CheckedCreate> {
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
    let extra_mounts = reader.mounts();
    reader.optional("include_legacy_skills", field::boolean);
    let runtime = reader.optional("provision_lark_cli_runtime", field::boolean);
    let broker = reader.optional("provision_lark_cli_broker", field::boolean);
    let version = reader.optional("required_mount_contract_version", |value| {
        if value.is_null() { Ok(None) } else { field::integer(value).map(Some) }
    });
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
            id,
        },
        required_mount_contract_version: version.flatten(),
    })
}

/// One object that is being read; what is wrong with it is collected.
struct Reader<'a> {
    whole: &'a Value,
    members: &'a Map<String, Value>,
    path: Vec<Loc>,
    errors: Vec<FieldError>,
}

impl<'a> Reader<'a> {
    fn required<T>(&mut self, name: &str, read: impl FnOnce(&'a Value) -> Result<T, Wrong>) -> Option<T> {
        if !self.members.contains_key(name) {
            let loc = self.loc(name);
            self.errors.push(Wrong::missing().at(loc, self.whole));
            return None;
        }
        self.optional(name, read)
    }

    fn optional<T>(&mut self, name: &str, read: impl FnOnce(&'a Value) -> Result<T, Wrong>) -> Option<T> {
        let value = self.members.get(name)?;
        match read(value) {
            Ok(read) => Some(read),
            Err(wrong) => {
                let loc = self.loc(name);
                self.errors.push(wrong.at(loc, value));
                None
            }
        }
    }

    fn mounts(&mut self) -> Vec<RequestedMount> {
        let Some(items) = self.optional("extra_mounts", |value| {
            let items =
                value.as_array().ok_or_else(|| Wrong::new("list_type", "Input should be a valid list"))?;
            if items.len() > MAX_EXTRA_MOUNTS {
                return Err(Wrong::too_many(MAX_EXTRA_MOUNTS, items.len()));
            }
            Ok(items)
        }) else {
            return Vec::new();
        };
        let mut mounts = Vec::with_capacity(items.len());
        for (position, item) in items.iter().enumerate() {
            let mut path = self.loc("extra_mounts");
            path.push(position.into());
            let Value::Object(members) = item else {
                self.errors.push(Wrong::not_an_object().at(path, item));
                continue;
            };
            let mut reader = Reader { whole: item, members, path, errors: Vec::new() };
            mounts.extend(read_mount(&mut reader));
            self.errors.append(&mut reader.errors);
        }
        mounts
    }

    fn loc(&self, name: &str) -> Vec<Loc> {
        let mut loc = self.path.clone();
        loc.push(name.into());
        loc
    }
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
