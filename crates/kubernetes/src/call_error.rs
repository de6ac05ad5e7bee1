//! What an API call came to, sorted by what can be done about it.

use std::time::Duration;

use stockade_core::BackendError;
use thiserror::Error;

use crate::diagnosis;

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
    /// Something in the cluster does not admit the object: a policy, a webhook.
    #[error("not admitted: {0}")]
    Denied(String),
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
            other => return Self::Transport(transport_text(&other)),
        };
        let kind = status.details.as_ref().map(|details| details.kind.clone()).unwrap_or_default();
        let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        // A proxy's whole error page may stand here.
        let message = diagnosis::shorten(&status.message);
        match status.code {
            401 => Self::Unauthorized(message),
            403 if message.contains("exceeded quota") || message.contains("maximum ") => Self::Quota(message),
            403 if message.contains(" cannot ") => Self::Forbidden(message),
            403 if message.contains("being terminated") => Self::Server { code: 403, message },
            403 => Self::Denied(message),
            // A proxy, or a path that leads to no API, answers 404 too: that says nothing about the object.
            404 if status.reason == "NotFound" && !kind.is_empty() => Self::NotFound { kind, message },
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 => Self::Conflict(message),
            410 => Self::Expired,
            400 | 422 => Self::Invalid(message),
            429 => Self::Throttled(Duration::from_secs(u64::from(wait))),
            code => Self::Server { code, message },
        }
    }
}

/// What kept a request from being answered, without a secret in it.
///
/// The errors of credential plugins hold what the plugin printed, and those of proxies hold the proxy's URL
/// with its password; such errors become a fixed sentence wherever in the chain they are. Of the others the
/// innermost cause says most: "connection refused" rather than "client error (Connect)".
pub(crate) fn transport_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut next = Some(error);
    let mut innermost = error;
    while let Some(error) = next {
        if let Some(text) = error.downcast_ref::<kube::Error>().and_then(fixed_text) {
            return text.to_owned();
        }
        if error.is::<kube::client::AuthError>() {
            return CREDENTIALS.to_owned();
        }
        innermost = error;
        next = error.source();
    }
    diagnosis::shorten(&innermost.to_string())
}

const CREDENTIALS: &str = "the kubeconfig's way to credentials fails (a plugin, a token file); `kubectl get pods` \
     with the same kubeconfig shows how";

fn fixed_text(error: &kube::Error) -> Option<&'static str> {
    Some(match error {
        kube::Error::Auth(_) => CREDENTIALS,
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            "the proxy (proxy-url of the kubeconfig, or HTTPS_PROXY) has a scheme that is not supported; http is"
        }
        kube::Error::InferConfig(_) | kube::Error::InferKubeconfig(_) => "the kubeconfig is not usable",
        kube::Error::SerdeError(_) => "what came back is not an answer of a Kubernetes API server",
        _ => return None,
    })
}

impl CallError {
    /// Our namespace is not there: worth making it and trying again.
    pub(crate) fn is_namespace_missing(&self) -> bool {
        matches!(self, Self::NotFound { kind, .. } if kind == "namespaces")
    }

    /// The same for who called us. `doing` completes "while ...": `creating the Pod of sandbox 'x'`.
    pub(crate) fn into_backend(self, doing: &str, server: &str) -> BackendError {
        match self {
            Self::Unauthorized(message) => BackendError::Forbidden {
                message: format!(
                    "the Kubernetes API server at {server} does not accept our credentials while {doing}: \
                     {message}. Renew the kubeconfig and restart this server, which reads it once"
                ),
            },
            Self::Forbidden(message) => BackendError::Forbidden {
                message: format!(
                    "a right is missing while {doing}: {message}. The Role in deploy/kubernetes lists what is \
                     needed; `stockade doctor` checks each"
                ),
            },
            Self::Denied(message) => BackendError::Rejected {
                message: format!(
                    "the cluster does not admit the object while {doing}: {message}{}",
                    policy_hint(&message)
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

fn policy_hint(message: &str) -> &'static str {
    if message.contains("violates PodSecurity") {
        ". hostPath volumes need the namespace label pod-security.kubernetes.io/enforce=privileged, or use \
         SKILLS_PVC_NAME and USERDATA_PVC_NAME"
    } else {
        ""
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

    fn missing(kind: &str) -> CallError {
        let details = serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap();
        let status = Status::failure("not found", "NotFound").with_code(404).with_details(details);
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn what_a_proxy_or_a_credential_plugin_says_is_not_repeated() {
        let proxy = kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new("ftp://user:very-secret@proxy".parse().unwrap()),
        };
        let plugin = kube::client::AuthError::AuthExecStart(std::io::Error::other("very-secret"));
        for error in [proxy, kube::Error::Auth(plugin)] {
            let wrapped = kube::Error::Service(Box::new(error));
            let text = CallError::from(wrapped).to_string();
            assert!(!text.contains("very-secret"), "{text}");
        }
    }

    #[test]
    fn an_error_page_of_a_proxy_is_cut_and_cleaned() {
        let CallError::Server { message, .. } = of(502, "", &"<html>\n".repeat(1_000)) else { panic!() };
        assert!(message.len() < 1_000 && !message.contains('\n'));
    }

    #[test]
    fn a_status_is_sorted_by_what_can_be_done() {
        assert!(matches!(of(401, "Unauthorized", ""), CallError::Unauthorized(_)));
        let rbac = "pods is forbidden: User \"x\" cannot create resource \"pods\"";
        assert!(matches!(of(403, "Forbidden", rbac), CallError::Forbidden(_)));
        let policy = "pods \"sandbox-a\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath";
        assert!(matches!(of(403, "Forbidden", policy), CallError::Denied(_)));
        let error = of(403, "Forbidden", policy).into_backend("creating", "https://h");
        assert!(error.to_string().contains("pod-security.kubernetes.io/enforce"), "{error}");
        let ending = "unable to create new content in namespace x because it is being terminated";
        assert!(matches!(of(403, "Forbidden", ending), CallError::Server { .. }));
        assert!(matches!(of(403, "Forbidden", "exceeded quota: x"), CallError::Quota(_)));
        assert!(matches!(of(409, "AlreadyExists", ""), CallError::AlreadyExists));
        assert!(matches!(of(409, "Conflict", "uid"), CallError::Conflict(_)));
        assert!(matches!(of(410, "Expired", ""), CallError::Expired));
        assert!(matches!(of(422, "Invalid", ""), CallError::Invalid(_)));
        assert!(matches!(of(429, "TooManyRequests", ""), CallError::Throttled(_)));
        assert!(matches!(of(503, "ServiceUnavailable", ""), CallError::Server { code: 503, .. }));
        assert!(missing("namespaces").is_namespace_missing());
        assert!(
            matches!(missing("pods"), CallError::NotFound { .. }) && !missing("pods").is_namespace_missing()
        );
        assert!(matches!(of(404, "NotFound", "page not found"), CallError::Server { code: 404, .. }));
        assert!(matches!(of(404, "", "404 page not found"), CallError::Server { code: 404, .. }));
    }

    #[test]
    fn a_loopback_server_in_a_container_names_the_variable_and_the_port() {
        let text = unreachable_text("https://127.0.0.1:6550", "connection refused");
        assert!(text.contains("K8S_API_SERVER=https://host.docker.internal:6550"), "{text}");
        assert!(!unreachable_text("https://10.0.0.1:6443", "refused").contains("K8S_API_SERVER"));
    }
}
