//! What `stockade doctor` says about the cluster.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde::Serialize;
use tokio::time::timeout;

use crate::call_error::{CallError, unreachable_text};
use crate::connect;
use crate::settings::{KubernetesSettings, ServiceType};

/// How long the doctor waits for one answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but something is missing or unwise.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Something that is as it should be, or that cannot be mended.
    #[must_use]
    pub fn new(name: &str, level: Level, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level, detail: detail.into(), fix: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, detail)
    }

    fn of(level: Level, name: &str, detail: impl Into<String>, fix: &str) -> Self {
        Self::new(name, level, detail).fix(fix)
    }
}

/// A right and what is lost without it. `deploy/kubernetes` grants exactly these.
struct Right {
    verb: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    /// `None`: nothing works without it.
    feature: Option<&'static str>,
}

const fn needed(verb: &'static str, resource: &'static str) -> Right {
    Right { verb, resource, subresource: None, feature: None }
}

const fn wanted(verb: &'static str, resource: &'static str, feature: &'static str) -> Right {
    Right { verb, resource, subresource: None, feature: Some(feature) }
}

const RIGHTS: [Right; 14] = [
    needed("get", "pods"),
    needed("list", "pods"),
    needed("watch", "pods"),
    needed("create", "pods"),
    needed("delete", "pods"),
    needed("get", "services"),
    needed("list", "services"),
    needed("watch", "services"),
    needed("create", "services"),
    needed("delete", "services"),
    Right { verb: "get", resource: "pods", subresource: Some("log"), feature: Some("GET .../{id}/logs") },
    wanted("list", "events", "GET .../{id}/events and reasons such as FailedMount"),
    wanted("watch", "events", "reasons such as FailedMount"),
    wanted("get", "namespaces", "the reconciliation endpoint"),
];

/// Looks at the cluster as the settings name it.
pub async fn examine(settings: &KubernetesSettings) -> Vec<Finding> {
    let connection = match connect::connect(settings, Duration::ZERO).await {
        Ok(connection) => connection,
        Err(error) => {
            return vec![Finding::of(Level::Fail, "cluster", error.to_string(), "see the sentence above")];
        }
    };
    let mut findings = vec![Finding::ok("cluster", format!("configured: {}", connection.server))];
    match version(&connection.client).await {
        Ok(version) => findings.push(Finding::ok("api server", format!("answers, version {version}"))),
        Err(error) => {
            let detail = match error {
                CallError::Transport(cause) => unreachable_text(&connection.server, &cause),
                other => other.to_string(),
            };
            let fix = "check that the API server runs, and KUBECONFIG_PATH and K8S_API_SERVER";
            findings.push(Finding::of(Level::Fail, "api server", detail, fix));
            return findings;
        }
    }
    for right in &RIGHTS {
        findings.push(examine_right(&connection.client, settings, right).await);
    }
    findings.push(examine_nodes(&connection.client).await);
    findings.push(examine_address(settings));
    findings.extend(examine_hardening(settings));
    findings
}

async fn version(client: &Client) -> Result<String, CallError> {
    let answer = timeout(LIMIT, client.apiserver_version()).await.map_err(|_| CallError::TimedOut(LIMIT))?;
    Ok(answer?.git_version)
}

async fn examine_right(client: &Client, settings: &KubernetesSettings, right: &Right) -> Finding {
    let resource = match right.subresource {
        Some(subresource) => format!("{}/{subresource}", right.resource),
        None => right.resource.to_owned(),
    };
    let name = format!("right to {} {resource}", right.verb);
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(settings.namespace.clone()),
                name: (right.resource == "namespaces").then(|| settings.namespace.clone()),
                verb: Some(right.verb.to_owned()),
                resource: Some(right.resource.to_owned()),
                subresource: right.subresource.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match timeout(LIMIT, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
            Finding::ok(&name, "granted")
        }
        Ok(Ok(_)) => match right.feature {
            None => Finding::of(Level::Fail, &name, "missing", "apply deploy/kubernetes/rbac.yaml"),
            Some(feature) => {
                let detail = format!("missing: without it, no {feature}");
                Finding::of(Level::Warn, &name, detail, "apply deploy/kubernetes/rbac.yaml")
            }
        },
        Ok(Err(error)) => Finding::of(
            Level::Warn,
            &name,
            format!("could not be asked: {}", CallError::from(error)),
            "ask the cluster's administrator",
        ),
        Err(_) => Finding::of(Level::Warn, &name, "no answer in time", "try again"),
    }
}

async fn examine_nodes(client: &Client) -> Finding {
    let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let nodes = match timeout(LIMIT, api.list(&ListParams::default().limit(500))).await {
        Ok(Ok(nodes)) => nodes.items,
        _ => return Finding::ok("nodes", "not visible with these rights, and need not be"),
    };
    let ready = nodes.iter().filter(|node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    match ready.count() {
        0 => Finding::of(
            Level::Fail,
            "nodes",
            format!("none of {} is ready: sandboxes stay Pending", nodes.len()),
            "kubectl describe nodes",
        ),
        count => Finding::ok("nodes", format!("{count} of {} ready", nodes.len())),
    }
}

fn examine_address(settings: &KubernetesSettings) -> Finding {
    let example = match settings.service_type {
        ServiceType::NodePort => format!("http://{}:{{node port}}", settings.node_host),
        ServiceType::ClusterIp => {
            format!("http://sandbox-{{id}}-svc.{}.svc.cluster.local", settings.namespace)
        }
    };
    let detail = format!("sandboxes are told to be at {example}");
    match settings.service_type {
        ServiceType::ClusterIp => Finding::of(
            Level::Warn,
            "address",
            detail,
            "only from inside the cluster; for callers outside set SANDBOX_SERVICE_TYPE=NodePort",
        ),
        ServiceType::NodePort if settings.node_host == "host.docker.internal" => Finding::of(
            Level::Warn,
            "address",
            detail,
            "that name is known inside Docker Desktop; on Linux add extra_hosts \
             host.docker.internal:host-gateway, elsewhere set NODE_HOST to a node's address",
        ),
        ServiceType::NodePort => Finding::ok("address", detail),
    }
}

fn examine_hardening(settings: &KubernetesSettings) -> Option<Finding> {
    (!settings.hardening).then(|| {
        Finding::of(
            Level::Warn,
            "hardening",
            "sandboxes get the namespace's default service account token and may escalate privileges, as with \
             the reference",
            "set SANDBOX_HARDENING=true where the image does not need sudo",
        )
    })
}
