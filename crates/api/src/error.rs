//! What an answer that is not a success looks like.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An error: a sentence for people, a word for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong and what to do about it.
    #[schema(example = "Sandbox 'x' not found")]
    pub detail: String,
    /// A stable word for it.
    #[schema(example = "not_found")]
    pub code: String,
}

/// A request that does not validate: every field that is wrong, in the form of pydantic 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InvalidRequest {
    /// One entry for each wrong field.
    pub detail: Vec<FieldError>,
    /// Always `invalid_request`.
    #[schema(example = "invalid_request")]
    pub code: String,
}

impl InvalidRequest {
    /// The code of every such answer.
    pub const CODE: &'static str = "invalid_request";

    /// The answer for these fields.
    #[must_use]
    pub fn new(detail: Vec<FieldError>) -> Self {
        Self { detail, code: Self::CODE.to_owned() }
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// What kind of wrong, by pydantic's names: `missing`, `string_type`, `bool_parsing`, ...
    #[serde(rename = "type")]
    #[schema(example = "string_pattern_mismatch")]
    pub kind: String,
    /// Where: `body` or `query`, then names and list positions.
    pub loc: Vec<Loc>,
    /// The same for people.
    pub msg: String,
    /// What was given, shortened where it is long.
    pub input: Value,
    /// The limits that were broken, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub ctx: Option<Value>,
}

/// One step on the way to a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Loc {
    /// Into an object.
    Name(String),
    /// Into a list, or the place of a syntax error in the text.
    Position(usize),
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Position(position) => write!(f, "{position}"),
        }
    }
}

impl From<&str> for Loc {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Loc {
    fn from(position: usize) -> Self {
        Self::Position(position)
    }
}

/// The answer to a request that requires another mount contract than this server's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountContractChanged {
    /// What differs.
    pub detail: MountContractDetail,
    /// Always `mount_contract_changed`.
    #[schema(example = "mount_contract_changed")]
    pub code: String,
}

/// A 409 of a create: either form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ConflictBody {
    /// Another mount contract is required.
    MountContract(MountContractChanged),
    /// Another sandbox has the id.
    Sandbox(ErrorBody),
}

/// The two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountContractDetail {
    /// Always `mount_contract_changed`; callers of the reference read it here.
    #[schema(example = "mount_contract_changed")]
    pub code: String,
    /// What the request requires.
    pub expected: i64,
    /// What this server serves.
    pub actual: u8,
}

impl MountContractChanged {
    /// The code of every such answer.
    pub const CODE: &'static str = "mount_contract_changed";

    /// The answer for these versions.
    #[must_use]
    pub fn new(expected: i64, actual: u8) -> Self {
        let code = Self::CODE.to_owned();
        Self { detail: MountContractDetail { code: code.clone(), expected, actual }, code }
    }
}
