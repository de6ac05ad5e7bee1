//! What a create may ask for beyond the reference's fields: variables, limits, a network policy.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use stockade_core::backend::Features;
use stockade_core::egress::{AllowRule, Destination, EgressPolicy, NetworkMode};
use stockade_core::resources::{Amount, Millicores, Resources};
use utoipa::ToSchema;

use crate::field::{self, Wrong};
use crate::object::Reader;

/// The most variables of one request.
pub const MAX_VARIABLES: usize = 128;
/// The most bytes of one name.
pub const MAX_VARIABLE_NAME: usize = 128;
/// The most bytes of all names and values together; Linux gives a program at least 128 KiB for them.
pub const MAX_ENVIRONMENT: usize = 64 * 1024;
/// The most destinations of one policy.
pub const MAX_ALLOWED: usize = 64;
/// What names of variables look like.
const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// Variables with this beginning are the agent's own settings.
const RESERVED: &str = "STOCKADE_";

/// How much of the machine a sandbox may use. What is left out has the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ResourceRequest {
    /// Processors: `2`, `0.5`, `500m`.
    #[serde(skip_serializing_if = "QuantityPair::is_empty")]
    #[schema(required = false)]
    pub cpu: QuantityPair,
    /// Bytes of memory: `512Mi`, `1.5Gi`.
    #[serde(skip_serializing_if = "QuantityPair::is_empty")]
    #[schema(required = false)]
    pub memory: QuantityPair,
    /// Bytes of files outside its mounts.
    #[serde(skip_serializing_if = "QuantityPair::is_empty")]
    #[schema(required = false)]
    pub ephemeral_storage: QuantityPair,
}

/// What is set aside, and what is never exceeded, as Kubernetes writes quantities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct QuantityPair {
    /// Set aside; not above the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Never exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "500m")]
    pub limit: Option<String>,
}

impl QuantityPair {
    fn is_empty(&self) -> bool {
        self.request.is_none() && self.limit.is_none()
    }
}

/// What a sandbox may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NetworkRequest {
    /// `isolated`: its own loopback; `open`: the internet, and no private addresses; `allowlist`: what is
    /// allowed, and nothing else.
    #[schema(example = "open")]
    pub mode: String,
    /// What is reachable beyond that: `example.com`, `*.example.com`, `192.0.2.0/24`, each with `:port` or
    /// without, and `:port` alone. Names need the mode `allowlist`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, required = false)]
    pub allow: Vec<String>,
}

/// Reads a field that some backends have: refused by name where this one has not.
pub(crate) fn offered(reader: &mut Reader<'_>, name: &'static str, has: bool) -> bool {
    if !has {
        reader.optional(
            name,
            |value| {
                if value.is_null() { Ok(()) } else { Err(Wrong::not_supported_here(name)) }
            },
        );
    }
    has
}

pub(crate) fn environment(reader: &mut Reader<'_>, features: Features) -> BTreeMap<String, String> {
    if !offered(reader, "env", features.env) {
        return BTreeMap::new();
    }
    reader.inside("env", read_environment).unwrap_or_default()
}

fn read_environment(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let count = reader.members.len();
    let size: usize =
        reader.members.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len) + 2).sum();
    let path = reader.path.clone();
    let mut variables = BTreeMap::new();
    // No echo of any value from here on: it may be a secret, and answers are kept in more places than requests.
    if count > MAX_VARIABLES {
        let wrong =
            Wrong::new("too_long", format!("There are {count} variables; at most {MAX_VARIABLES} are taken"));
        reader.errors.push(wrong.at(path, &Value::Null));
        return variables;
    }
    if size > MAX_ENVIRONMENT {
        let text = format!("Names and values have {size} bytes; at most {MAX_ENVIRONMENT} are taken");
        reader.errors.push(Wrong::new("too_long", text).at(path, &Value::Null));
        return variables;
    }
    for (name, value) in reader.members {
        match variable(name, value) {
            Ok(value) => drop(variables.insert(name.clone(), value.to_owned())),
            Err(wrong) => {
                let loc = reader.loc(&crate::echo::bounded_text(name));
                reader.errors.push(wrong.at(loc, &Value::Null));
            }
        }
    }
    variables
}

fn variable<'a>(name: &str, value: &'a Value) -> Result<&'a str, Wrong> {
    if name.len() > MAX_VARIABLE_NAME {
        return Err(Wrong::too_long(MAX_VARIABLE_NAME));
    }
    let starts_well = name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if !starts_well || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Err(Wrong::pattern(NAME_PATTERN));
    }
    if name.starts_with(RESERVED) {
        let text = format!("Names that begin with {RESERVED} are the sandbox's own");
        return Err(Wrong::new("value_error", text));
    }
    let value = field::text(value)?;
    if value.contains('\0') {
        return Err(Wrong::new("value_error", "A value cannot have a NUL character"));
    }
    Ok(value)
}

pub(crate) fn resources(reader: &mut Reader<'_>, features: Features) -> Resources {
    if !offered(reader, "resources", features.resources) {
        return Resources::default();
    }
    let read = |reader: &mut Reader<'_>| {
        reader.only(&["cpu", "memory", "ephemeral_storage"]);
        Resources {
            cpu: amount(reader, "cpu", Millicores::MIN),
            memory: amount(reader, "memory", Resources::LEAST_MEMORY),
            ephemeral_storage: amount(reader, "ephemeral_storage", Resources::LEAST_STORAGE),
        }
    };
    reader.inside("resources", read).unwrap_or_default()
}

/// Both quantities; a sandbox with a limit below `least` does not work.
fn amount<T>(reader: &mut Reader<'_>, name: &str, least: T) -> Amount<T>
where
    T: std::str::FromStr<Err: ToString> + PartialOrd + std::fmt::Display,
{
    let pair = reader.inside(name, |reader| {
        reader.only(&["request", "limit"]);
        let request = reader.optional("request", quantity).flatten();
        let limit = reader.optional("limit", |value| match quantity(value)? {
            Some(limit) if limit < least => {
                Err(Wrong::new("value_error", format!("Input must be at least {least}")))
            }
            limit => Ok(limit),
        });
        let limit = limit.flatten();
        if let (Some(request), Some(limit)) = (&request, &limit)
            && request > limit
        {
            let wrong = Wrong::new("value_error", "The request is above the limit");
            let loc = reader.loc("request");
            reader.errors.push(wrong.at(loc, reader.whole));
        }
        Amount { request, limit }
    });
    pair.unwrap_or_default()
}

/// A quantity, also one that is written as a number.
fn quantity<T: std::str::FromStr<Err: ToString>>(value: &Value) -> Result<Option<T>, Wrong> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(Wrong::new("string_type", "Input should be a quantity, as a text or a number")),
    };
    text.parse()
        .map(Some)
        .map_err(|error: T::Err| Wrong::new("value_error", format!("Input {}", error.to_string())))
}

pub(crate) fn network(reader: &mut Reader<'_>, features: Features) -> EgressPolicy {
    if !offered(reader, "network", !features.network.is_empty()) {
        return EgressPolicy::default();
    }
    let read = |reader: &mut Reader<'_>| {
        reader.only(&["mode", "allow"]);
        let mode = reader.required("mode", |value| mode(value, features.network));
        let allow = allowed(reader, mode);
        EgressPolicy { mode, allow }
    };
    reader.inside("network", read).unwrap_or_default()
}

fn mode(value: &Value, offered: &[NetworkMode]) -> Result<NetworkMode, Wrong> {
    let expected = NetworkMode::ALL.map(NetworkMode::as_str).join("', '");
    let mode = NetworkMode::from_name(field::text(value)?).ok_or_else(|| {
        Wrong::new("enum", format!("Input should be one of '{expected}'"))
            .with(json!({ "expected": expected }))
    })?;
    if !offered.contains(&mode) {
        let offered: Vec<&str> = offered.iter().map(|mode| mode.as_str()).collect();
        let text = format!(
            "The network mode '{mode}' is not available on this server; there are {}",
            offered.join(", ")
        );
        return Err(Wrong::new("not_supported", text));
    }
    Ok(mode)
}

fn allowed(reader: &mut Reader<'_>, mode: Option<NetworkMode>) -> Vec<AllowRule> {
    let items = reader.optional("allow", |value| {
        let items = match value {
            Value::Null => &[],
            Value::Array(items) => items.as_slice(),
            _ => return Err(Wrong::new("list_type", "Input should be a valid list")),
        };
        if items.len() > MAX_ALLOWED {
            return Err(Wrong::too_many(MAX_ALLOWED, items.len()));
        }
        if mode == Some(NetworkMode::Isolated) && !items.is_empty() {
            return Err(Wrong::new("value_error", "In the mode 'isolated' nothing can be allowed"));
        }
        Ok(items)
    });
    let mut rules = Vec::new();
    for (position, item) in items.unwrap_or_default().iter().enumerate() {
        match rule(item, mode) {
            Ok(rule) => rules.push(rule),
            Err(wrong) => {
                let mut loc = reader.loc("allow");
                loc.push(position.into());
                reader.errors.push(wrong.at(loc, item));
            }
        }
    }
    rules
}

fn rule(value: &Value, mode: Option<NetworkMode>) -> Result<AllowRule, Wrong> {
    let rule: AllowRule =
        field::text(value)?.parse().map_err(|error| Wrong::new("value_error", format!("Input {error}")))?;
    let is_name = matches!(rule.to, Destination::Name(_) | Destination::NamesBelow(_));
    if is_name && mode != Some(NetworkMode::Allowlist) {
        return Err(Wrong::new("value_error", "Names can be allowed in the mode 'allowlist' only"));
    }
    Ok(rule)
}

#[cfg(test)]
#[path = "extension_tests.rs"]
mod tests;
