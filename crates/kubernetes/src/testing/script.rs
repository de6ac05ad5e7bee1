//! What was called, and what is to go wrong.

use http::request::Parts;
use serde_json::Value;

/// How a call goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered with this status.
    Status {
        /// The HTTP code.
        code: u16,
        /// The machine-readable reason.
        reason: &'static str,
        /// The sentence.
        message: String,
    },
    /// It is never answered.
    Hang,
    /// There is no connection.
    Disconnect,
}

impl Fault {
    /// A status with this code and reason.
    #[must_use]
    pub fn status(code: u16, reason: &'static str, message: &str) -> Self {
        Self::Status { code, reason, message: message.to_owned() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Delete,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) verb: Verb,
    /// `pods`, `services`, `namespaces`, `events`.
    pub resource: String,
    /// The object's name, where there is one.
    pub name: Option<String>,
    /// The body, null where there is none.
    pub body: Value,
    query: Vec<(String, String)>,
}

impl Call {
    /// `create pods`, for comparing lists of calls.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} {}", self.verb.name(), self.resource)
    }

    pub(super) fn parse(parts: &Parts, body: &[u8]) -> Self {
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        // api/v1/namespaces/{ns}/{resource}[/{name}] or api/v1/namespaces[/{name}]
        let (resource, name) = match path.as_slice() {
            ["api", "v1", "namespaces", _, resource] => (*resource, None),
            ["api", "v1", "namespaces", _, resource, name, ..] => (*resource, Some(*name)),
            ["api", "v1", "namespaces", name] => ("namespaces", Some(*name)),
            ["api", "v1", "namespaces"] => ("namespaces", None),
            _ => ("unknown", None),
        };
        let query: Vec<(String, String)> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let is_watch = query.iter().any(|(key, value)| key == "watch" && value == "true");
        let verb = match (parts.method.as_str(), name.is_some()) {
            ("POST", _) => Verb::Create,
            ("DELETE", _) => Verb::Delete,
            (_, true) => Verb::Get,
            (_, false) if is_watch => Verb::Watch,
            (_, false) => Verb::List,
        };
        Self {
            verb,
            resource: resource.to_owned(),
            name: name.map(str::to_owned),
            body: serde_json::from_slice(body).unwrap_or_default(),
            query,
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.query.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.parse().ok())
    }

    /// How many objects a list may hold.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.number("limit")
    }

    pub(super) fn revision(&self) -> u64 {
        self.number("resourceVersion").unwrap_or(0)
    }

    pub(super) fn timeout_seconds(&self) -> u64 {
        self.number("timeoutSeconds").unwrap_or(300)
    }
}

#[derive(Default)]
pub(super) struct Script {
    faults: Vec<(String, Fault, usize)>,
    calls: Vec<Call>,
}

impl Script {
    pub(super) fn add(&mut self, verb: &str, resource: &str, fault: Fault, times: usize) {
        self.faults.push((format!("{verb} {resource}"), fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// Notes the call and says what is to go wrong with it.
    pub(super) fn take(&mut self, call: &Call) -> Option<Fault> {
        if call.verb != Verb::Watch {
            self.calls.push(call.clone());
        }
        let summary = call.summary();
        let (_, fault, left) = self.faults.iter_mut().find(|(on, _, left)| *on == summary && *left > 0)?;
        *left -= 1;
        Some(fault.clone())
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.clone()
    }

    pub(super) fn forget_calls(&mut self) {
        self.calls.clear();
    }
}
