//! What the Kubernetes backend is told at start, already checked.

use std::path::PathBuf;
use std::time::Duration;

use stockade_core::layout::{LarkSupport, StorageLayout};

/// Settings of the backend. The environment variable behind each is named; the binary reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// `K8S_NAMESPACE`: where sandboxes live; made when it is missing and that is permitted.
    pub namespace: String,
    /// `SANDBOX_IMAGE`: what runs in a sandbox.
    pub image: String,
    /// `SANDBOX_AGENT_IMAGE`: an image whose entry point is the sandbox agent. It says that the agent runs in
    /// sandboxes, and opens a new thread's directory to the image's user.
    pub agent_image: Option<String>,
    /// `SANDBOX_INJECT_AGENT`: that agent is brought into [`Self::image`] too, and run in place of that image's
    /// entry point.
    pub inject_agent: bool,
    /// `SANDBOX_CONTAINER_PORT`: where the sandbox agent listens in it.
    pub container_port: u16,
    /// `SANDBOX_SERVICE_TYPE`: how a sandbox is reached.
    pub service_type: ServiceType,
    /// `NODE_HOST`: the host name or address in NodePort URLs, IPv6 already in brackets.
    pub node_host: String,
    /// `KUBECONFIG_PATH`.
    pub kubeconfig: PathBuf,
    /// Whether that variable was set: then the file is waited for inside a Pod too.
    pub kubeconfig_is_set: bool,
    /// `K8S_API_SERVER`: replaces the kubeconfig's server; its certificate is then not checked.
    pub api_server: Option<String>,
    /// Where files lie.
    pub storage: StorageLayout,
    /// The Lark CLI images.
    pub lark: LarkImages,
    /// `SANDBOX_HARDENING`: no service account token, no environment variables of other Services, no
    /// privilege escalation, the runtime's seccomp profile. Off by default: the reference has none of it and
    /// its image uses sudo.
    pub hardening: bool,
    /// `SANDBOX_DELETE_GRACE_SECONDS`: how long a sandbox may take to end.
    pub delete_grace: Duration,
    /// `SANDBOX_CREATE_WAIT`: how long the answer of a create may wait until the sandbox answers; zero: not at all.
    pub create_wait: Duration,
}

/// How a sandbox is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceType {
    /// At a port of every node.
    NodePort,
    /// By name, from inside the cluster only.
    ClusterIp,
}

impl ServiceType {
    /// The name in a Service.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// The Lark CLI images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LarkImages {
    /// `LARK_CLI_INIT_IMAGE`: pattern A.
    pub init: Option<String>,
    /// `LARK_CLI_BROKER_IMAGE`: pattern B.
    pub broker: Option<String>,
    /// `DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS`: forwarded to the sidecar as it is.
    pub deny_subcommands: Option<String>,
}

impl LarkImages {
    /// Which patterns can be provided.
    #[must_use]
    pub fn support(&self) -> LarkSupport {
        LarkSupport { runtime: self.init.is_some(), broker: self.broker.is_some() }
    }
}
