//! Why a call did not succeed.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use thiserror::Error;

use crate::{FieldError, InvalidRequest};

/// Why a call did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not an address of a server.
    #[error("{url:?} is not an address like http://127.0.0.1:8002 (plain HTTP only)")]
    BaseUrl {
        /// What was given.
        url: String,
    },
    /// The key has characters that cannot stand in a header.
    #[error("the API key has characters that cannot stand in a header")]
    Key,
    /// The request could not be written.
    #[error("the request cannot be written as JSON")]
    Request {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No answer: nobody listens there, or the connection broke.
    #[error("no answer from {url}")]
    Unreachable {
        /// The server.
        url: String,
        /// What went wrong below.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// No answer in time.
    #[error("no answer to {operation} within {} s", limit.as_secs())]
    TimedOut {
        /// What was asked.
        operation: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The key is missing or wrong, or the server has none configured.
    #[error("the server does not accept the API key, or has none configured (PROVISIONER_API_KEY)")]
    Unauthorized,
    /// Fields that are wrong.
    #[error("{}", first_of(fields))]
    Invalid {
        /// All of them.
        fields: Vec<FieldError>,
    },
    /// The server said no.
    #[error("{detail} (HTTP {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's word for it; empty when it gave none.
        code: String,
        /// The server's sentence.
        detail: String,
    },
    /// An answer that is not what it should be.
    #[error("the server's answer (HTTP {status}) cannot be read")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// What an answer that is not a success means.
    pub(super) fn of(status: StatusCode, answer: &[u8]) -> Self {
        if status == StatusCode::UNAUTHORIZED {
            return Self::Unauthorized;
        }
        if let Ok(InvalidRequest { detail: fields, .. }) = serde_json::from_slice(answer) {
            return Self::Invalid { fields };
        }
        let body: Value = serde_json::from_slice(answer).unwrap_or_default();
        let detail = match &body["detail"] {
            Value::String(detail) => detail.clone(),
            Value::Null => "the server gave no reason".to_owned(),
            other => other.to_string(),
        };
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        Self::Refused { status: status.as_u16(), code, detail }
    }
}

fn first_of(fields: &[FieldError]) -> String {
    match fields {
        [] => "the request does not validate".to_owned(),
        [first, rest @ ..] => {
            let place: Vec<String> = first.loc.iter().skip(1).map(ToString::to_string).collect();
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            format!("{}: {}{more}", place.join("."), first.msg)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, answer: &str, expect: &str) {
        let error = ClientError::of(StatusCode::from_u16(status).unwrap(), answer.as_bytes());
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn an_error_says_what_the_server_said() {
        check(
            404,
            r#"{"detail":"Sandbox 'x' not found","code":"not_found"}"#,
            "Sandbox 'x' not found (HTTP 404)",
        );
        check(500, "<html>", "the server gave no reason (HTTP 500)");
        check(409, r#"{"detail":{"expected":3}}"#, r#"{"expected":3} (HTTP 409)"#);
        let field =
            r#"{"type":"missing","loc":["body","extra_mounts",0],"msg":"Field required","input":null}"#;
        let invalid = format!(r#"{{"detail":[{field},{field}],"code":"invalid_request"}}"#);
        check(422, &invalid, "extra_mounts.0: Field required (and 1 more)");
    }
}
