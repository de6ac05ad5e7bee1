//! What an API call came to, sorted by what can be done about it.

use std::time::Duration;

use stockade_core::BackendError;
use thiserror::Error;

/// How long a caller should wait when the API server is in trouble.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why an API call failed.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// There is no such object.
    #[error("not found: {message}")]
    NotFound {
        /// What is not there; a missing namespace is told from a missing Pod by it.
        kind: String,
        message: String,
    },
    /// An object of this name is there already.
    #[error("already exists")]
    AlreadyExists,
    /// A precondition did not hold: the object is another one by now.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The version to go on from is no longer kept.
    #[error("resource version expired")]
    Expired,
    /// Our credentials are not accepted.
    #[error("credentials not accepted: {0}")]
    Unauthorized(String),
    /// We lack the right.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// A ResourceQuota or LimitRange is in the way.
    #[error("quota: {0}")]
    Quota(String),
    /// The object is not valid.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Too many requests; told to wait so long.
    #[error("throttled")]
    Throttled(Duration),
    /// The API server failed.
    #[error("status {code}: {message}")]
    Server { code: u16, message: String },
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// No connection, or none that works.
    #[error("{0}")]
    Transport(String),
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            other => return Self::Transport(innermost(&other)),
        };
        let kind = status.details.as_ref().map(|details| details.kind.clone()).unwrap_or_default();
        let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let message = status.message.clone();
        match status.code {
            401 => Self::Unauthorized(message),
            403 if message.contains("quota") || message.contains("maximum") => Self::Quota(message),
            403 => Self::Forbidden(message),
            404 => Self::NotFound { kind, message },
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 => Self::Conflict(message),
            410 => Self::Expired,
            400 | 422 => Self::Invalid(message),
            429 => Self::Throttled(Duration::from_secs(u64::from(wait))),
            code => Self::Server { code, message },
        }
    }
}

/// The innermost cause says most: "connection refused" rather than "client error (Connect)".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl CallError {
    /// Worth another try with the same request, by itself and soon.
    pub(crate) fn is_namespace_missing(&self) -> bool {
        matches!(self, Self::NotFound { kind, message }
            if kind == "namespaces" || message.starts_with("namespaces "))
    }

    /// The same for who called us. `doing` completes "while ...": `creating the Pod of sandbox 'x'`.
    pub(crate) fn into_backend(self, doing: &str, server: &str) -> BackendError {
        match self {
            Self::Unauthorized(message) => BackendError::Forbidden {
                message: format!(
                    "the Kubernetes API server at {server} does not accept our credentials while {doing}: \
                     {message}. Renew the kubeconfig or the service account token"
                ),
            },
            Self::Forbidden(message) => BackendError::Forbidden {
                message: format!(
                    "a right is missing while {doing}: {message}. The Role in deploy/kubernetes lists what is \
                     needed; `stockade doctor` checks each"
                ),
            },
            Self::Quota(message) => {
                BackendError::QuotaExceeded { message: format!("no room while {doing}: {message}") }
            }
            Self::Invalid(message) => BackendError::Rejected {
                message: format!("the Kubernetes API server refused the object while {doing}: {message}"),
            },
            Self::Throttled(wait) => BackendError::Overloaded {
                what: "the Kubernetes API server asks us to slow down",
                retry_after: wait.max(RETRY_AFTER),
            },
            Self::TimedOut(limit) => BackendError::Unreachable {
                message: format!(
                    "the Kubernetes API server at {server} did not answer within {} ms while {doing}",
                    limit.as_millis()
                ),
                source: None,
            },
            Self::Transport(cause) => BackendError::Unreachable {
                message: format!("{} ({doing})", unreachable_text(server, &cause)),
                source: Some(cause.into()),
            },
            other @ (Self::NotFound { .. }
            | Self::AlreadyExists
            | Self::Conflict(_)
            | Self::Expired
            | Self::Server { .. }) => BackendError::Unreachable {
                message: format!("the Kubernetes API server at {server} failed while {doing}: {other}"),
                source: Some(other.into()),
            },
        }
    }
}

/// Why the API server cannot be reached, and what to set. A loopback address in a kubeconfig means the
/// machine that wrote it; in a container that is another one.
pub(crate) fn unreachable_text(server: &str, cause: &str) -> String {
    let loopback = ["://127.0.0.1", "://localhost", "://[::1]", "://0.0.0.0"];
    let hint = if loopback.iter().any(|prefix| server.contains(prefix)) {
        let port = server.rsplit(':').next().map_or("6443", |port| port.trim_end_matches('/'));
        format!(
            ". Inside a container that address is the container itself: set \
             K8S_API_SERVER=https://host.docker.internal:{port}"
        )
    } else {
        String::new()
    };
    format!("the Kubernetes API server at {server} cannot be reached: {cause}{hint}")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn of(code: u16, reason: &str, message: &str) -> CallError {
        kube::Error::Api(Status::failure(message, reason).with_code(code).boxed()).into()
    }

    #[test]
    fn a_status_is_sorted_by_what_can_be_done() {
        assert!(matches!(of(401, "Unauthorized", ""), CallError::Unauthorized(_)));
        assert!(matches!(of(403, "Forbidden", "pods is forbidden"), CallError::Forbidden(_)));
        assert!(matches!(of(403, "Forbidden", "exceeded quota: x"), CallError::Quota(_)));
        assert!(matches!(of(409, "AlreadyExists", ""), CallError::AlreadyExists));
        assert!(matches!(of(409, "Conflict", "uid"), CallError::Conflict(_)));
        assert!(matches!(of(410, "Expired", ""), CallError::Expired));
        assert!(matches!(of(422, "Invalid", ""), CallError::Invalid(_)));
        assert!(matches!(of(429, "TooManyRequests", ""), CallError::Throttled(_)));
        assert!(matches!(of(503, "ServiceUnavailable", ""), CallError::Server { code: 503, .. }));
        assert!(of(404, "NotFound", "namespaces \"x\" not found").is_namespace_missing());
        assert!(!of(404, "NotFound", "pods \"x\" not found").is_namespace_missing());
    }

    #[test]
    fn a_loopback_server_in_a_container_names_the_variable_and_the_port() {
        let text = unreachable_text("https://127.0.0.1:6550", "connection refused");
        assert!(text.contains("K8S_API_SERVER=https://host.docker.internal:6550"), "{text}");
        assert!(!unreachable_text("https://10.0.0.1:6443", "refused").contains("K8S_API_SERVER"));
    }
}
