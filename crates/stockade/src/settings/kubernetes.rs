//! The variables of the Kubernetes backend.

use std::path::PathBuf;
use std::time::Duration;

use stockade_core::layout::StorageLayout;
use stockade_kubernetes::KubernetesSettings;
use stockade_kubernetes::settings::{LarkImages, ServiceType};

use super::reader::Reader;
use super::values;

/// The reference's image.
pub(super) const DEFAULT_IMAGE: &str =
    "enterprise-public-cn-beijing.cr.volces.com/vefaas-public/all-in-one-sandbox:latest";
const DEFAULT_NAMESPACE: &str = "deer-flow";
const DEFAULT_NODE_HOST: &str = "host.docker.internal";
/// How long the answer of a create waits for the sandbox unless told otherwise: a new Pod answers at a NodePort
/// after 1.1 s, sometimes 2.1 s.
const CREATE_WAIT: Duration = Duration::from_secs(3);
/// Seconds. Callers give up on a create after 30 s, and the create itself needs some.
const MAX_CREATE_WAIT: u64 = 20;
/// Where a kubeconfig is looked for unless told otherwise.
pub(crate) const DEFAULT_KUBECONFIG: &str = "/root/.kube/config";

/// Variables that say something to this backend and nothing to the other, with what the other has instead.
pub(super) const ONLY: [(&str, &str); 13] = [
    ("K8S_NAMESPACE", "there is no cluster"),
    ("K8S_API_SERVER", "there is no cluster; for Kubernetes say --backend kubernetes"),
    ("KUBECONFIG_PATH", "there is no cluster; for Kubernetes say --backend kubernetes"),
    ("SANDBOX_IMAGE", "sandboxes see this machine's own system directories"),
    ("SANDBOX_AGENT_IMAGE", "the agent is part of the server"),
    ("SANDBOX_INJECT_AGENT", "the agent is always Stockade's"),
    ("SANDBOX_CREATE_WAIT", "the URLs of sandboxes answer from the first moment"),
    ("SANDBOX_SERVICE_TYPE", "sandboxes listen on SANDBOX_BIND"),
    ("SANDBOX_HARDENING", "sandboxes are always hardened"),
    ("LARK_CLI_INIT_IMAGE", "images need Kubernetes"),
    ("LARK_CLI_BROKER_IMAGE", "images need Kubernetes"),
    ("DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS", "images need Kubernetes"),
    ("SKILLS_PVC_SUBPATH_TEMPLATE", "claims need Kubernetes"),
];

/// Reads them.
pub(super) fn read(
    reader: &mut Reader<'_>,
    storage: StorageLayout,
    delete_grace: Duration,
    warnings: &mut Vec<String>,
) -> KubernetesSettings {
    let lark = LarkImages {
        init: reader.parse("LARK_CLI_INIT_IMAGE", values::image),
        broker: reader.parse("LARK_CLI_BROKER_IMAGE", values::image),
        deny_subcommands: reader.text("DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS"),
    };
    if lark.deny_subcommands.is_some() && lark.broker.is_none() {
        warnings.push(
            "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS has no effect without LARK_CLI_BROKER_IMAGE".to_owned(),
        );
    }
    let kubeconfig = reader.text("KUBECONFIG_PATH");
    let image = reader.parse("SANDBOX_IMAGE", values::image);
    let (agent_image, inject_agent) = read_agent_image(reader, image.is_some(), warnings);
    let settings = KubernetesSettings {
        namespace: reader
            .parse("K8S_NAMESPACE", values::dns_label)
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        image: image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        agent_image,
        inject_agent,
        container_port: super::container_port(reader),
        service_type: reader.parse("SANDBOX_SERVICE_TYPE", service_type).unwrap_or(ServiceType::NodePort),
        node_host: reader
            .parse("NODE_HOST", values::url_host)
            .unwrap_or_else(|| DEFAULT_NODE_HOST.to_owned()),
        kubeconfig_is_set: kubeconfig.is_some(),
        kubeconfig: PathBuf::from(kubeconfig.unwrap_or_else(|| DEFAULT_KUBECONFIG.to_owned())),
        api_server: reader.parse("K8S_API_SERVER", values::server_url),
        storage,
        lark,
        hardening: reader.parse("SANDBOX_HARDENING", values::boolean).unwrap_or(false),
        delete_grace,
        create_wait: reader.parse("SANDBOX_CREATE_WAIT", create_wait).unwrap_or(CREATE_WAIT),
    };
    if settings.api_server.is_some() {
        warnings.push("K8S_API_SERVER is set: the certificate of the API server is not checked".to_owned());
    }
    settings
}

/// The image that has the agent, and whether the agent is to be brought into the sandbox's image.
fn read_agent_image(
    reader: &mut Reader<'_>,
    has_image: bool,
    warnings: &mut Vec<String>,
) -> (Option<String>, bool) {
    const NEEDED: &str = "must name the image that SANDBOX_INJECT_AGENT=true takes the agent from: one whose entry \
                          point is stockade-agent";
    let image = reader.parse("SANDBOX_AGENT_IMAGE", values::image);
    let is_set = reader.is_set("SANDBOX_AGENT_IMAGE");
    if !reader.parse("SANDBOX_INJECT_AGENT", values::boolean).unwrap_or(false) {
        if is_set && !has_image {
            warnings.push(
                "SANDBOX_AGENT_IMAGE has no effect without SANDBOX_INJECT_AGENT=true or a SANDBOX_IMAGE that has the \
                 agent"
                    .to_owned(),
            );
        }
        return (image.filter(|_| has_image), false);
    }
    if !is_set {
        reader.problem("SANDBOX_AGENT_IMAGE", "", NEEDED);
    }
    if !has_image {
        warnings.push(
            "SANDBOX_INJECT_AGENT is true and SANDBOX_IMAGE is not set: Stockade's agent runs in the default \
             image in place of the image's own server"
                .to_owned(),
        );
    }
    (image, true)
}

/// In seconds.
fn create_wait(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_CREATE_WAIT);
    seconds.map(Duration::from_secs).ok_or("must be a whole number of seconds, 0 to 20; 0 does not wait")
}

fn service_type(text: &str) -> Result<ServiceType, &'static str> {
    [ServiceType::NodePort, ServiceType::ClusterIp]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or("must be NodePort or ClusterIP")
}
