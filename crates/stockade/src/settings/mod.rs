//! Settings: from environment variables to types that cannot hold a bad value.
//!
//! The names and defaults are the provisioner contract's. A wrong value stops the start, and all of them
//! are named at once. Nothing here touches the machine: variables come from a function.

mod reader;
mod storage;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use stockade_kubernetes::KubernetesSettings;
use stockade_kubernetes::settings::{LarkImages, ServiceType};
use stockade_server::{Access, AllowedHost, AllowedHosts, ServerSettings};

use self::reader::Reader;
pub(crate) use self::reader::{Lookup, SettingsError};
use crate::cli::BackendKind;

/// Where the API listens unless told otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8002);
/// The reference's image.
const DEFAULT_IMAGE: &str =
    "enterprise-public-cn-beijing.cr.volces.com/vefaas-public/all-in-one-sandbox:latest";
const DEFAULT_NAMESPACE: &str = "deer-flow";
const DEFAULT_NODE_HOST: &str = "host.docker.internal";
const DEFAULT_CONTAINER_PORT: u16 = 8080;
const DEFAULT_KUBECONFIG: &str = "/root/.kube/config";
/// Seconds a sandbox may take to end. Zero would be a forced delete, after which two Pods could write one
/// directory; a create waits 25 s for the one before, so more than that delays the next create.
const DELETE_GRACE: u64 = 5;

/// What the command line says instead of a variable.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Overrides {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) backend: Option<BackendKind>,
}

/// Everything the server is told at start. Holds no secret: of the API key only its hash is kept.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Who may call, and under which names.
    pub(crate) server: ServerSettings,
    /// Where and how sandboxes run.
    pub(crate) kubernetes: KubernetesSettings,
    /// Why this mount contract is served.
    pub(crate) contract_reason: String,
    /// What is likely not meant so, though nothing is wrong with it.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads all variables.
    ///
    /// # Errors
    /// Every value that is wrong.
    pub(crate) fn load(lookup: Lookup<'_>, overrides: Overrides) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(lookup);
        let mut warnings = Vec::new();
        read_backend(&mut reader, overrides.backend);
        let listen = reader.parse("STOCKADE_LISTEN", |text| {
            text.parse().map_err(|_| "must be an address and a port, like 0.0.0.0:8002 or [::]:8002")
        });
        let kubernetes = read_kubernetes(&mut reader, &mut warnings);
        let server = read_server(&mut reader, &kubernetes.0.node_host, &mut warnings);
        let (kubernetes, contract_reason) = kubernetes;
        reader.finish(Self {
            listen: overrides.listen.or(listen).unwrap_or(DEFAULT_LISTEN),
            server,
            kubernetes,
            contract_reason,
            warnings,
        })
    }
}

/// There is one kind so far. Another is an error and never quietly this one: a slip of the pen must not
/// decide where sandboxes run.
fn read_backend(reader: &mut Reader<'_>, argument: Option<BackendKind>) {
    const NOT_BUILT: &str = "is not built yet in this version; the only backend is kubernetes";
    let variable = reader.parse("STOCKADE_BACKEND", |text| match text {
        "kubernetes" => Ok(BackendKind::Kubernetes),
        "embedded" if argument.is_some() => Ok(BackendKind::Embedded),
        "embedded" => Err(NOT_BUILT),
        _ => Err("must be kubernetes"),
    });
    if argument.or(variable) == Some(BackendKind::Embedded) {
        reader.problem("--backend", "embedded", NOT_BUILT);
    }
}

fn read_kubernetes(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> (KubernetesSettings, String) {
    let mut storage = storage::read(reader);
    warnings.append(&mut storage.warnings);
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
    let grace = reader.parse("SANDBOX_DELETE_GRACE_SECONDS", |text| {
        let seconds = text.parse().ok().filter(|seconds| (1..=300).contains(seconds));
        seconds.ok_or("must be a number of seconds from 1 to 300")
    });
    let kubeconfig = reader.text("KUBECONFIG_PATH");
    let settings = KubernetesSettings {
        namespace: reader
            .parse("K8S_NAMESPACE", values::dns_label)
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        image: reader.parse("SANDBOX_IMAGE", values::image).unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        container_port: reader
            .parse("SANDBOX_CONTAINER_PORT", values::port)
            .unwrap_or(DEFAULT_CONTAINER_PORT),
        service_type: reader.parse("SANDBOX_SERVICE_TYPE", service_type).unwrap_or(ServiceType::NodePort),
        node_host: reader
            .parse("NODE_HOST", values::url_host)
            .unwrap_or_else(|| DEFAULT_NODE_HOST.to_owned()),
        kubeconfig_is_set: kubeconfig.is_some(),
        kubeconfig: PathBuf::from(kubeconfig.unwrap_or_else(|| DEFAULT_KUBECONFIG.to_owned())),
        api_server: reader.parse("K8S_API_SERVER", values::server_url),
        storage: storage.layout,
        lark,
        hardening: reader.parse("SANDBOX_HARDENING", values::boolean).unwrap_or(false),
        delete_grace: Duration::from_secs(grace.unwrap_or(DELETE_GRACE)),
    };
    if settings.api_server.is_some() {
        warnings.push("K8S_API_SERVER is set: the certificate of the API server is not checked".to_owned());
    }
    (settings, storage.reason)
}

fn service_type(text: &str) -> Result<ServiceType, &'static str> {
    [ServiceType::NodePort, ServiceType::ClusterIp]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or("must be NodePort or ClusterIP")
}

fn read_server(reader: &mut Reader<'_>, node_host: &str, warnings: &mut Vec<String>) -> ServerSettings {
    let key = reader.parse_secret("PROVISIONER_API_KEY", |text| {
        values::api_key(text).map(|text| Access::key(&SecretString::from(text)))
    });
    let is_open = reader.parse("PROVISIONER_AUTH_DISABLED", values::boolean).unwrap_or(false);
    let access = match (is_open, key) {
        (true, key) => {
            let beside = if key.is_some() { "; PROVISIONER_API_KEY has no effect beside it" } else { "" };
            warnings.push(format!(
                "PROVISIONER_AUTH_DISABLED is true: whoever reaches this server can run code in sandboxes{beside}"
            ));
            Access::Open
        }
        (false, Some(access)) => access,
        (false, None) => {
            warnings.push(
                "PROVISIONER_API_KEY is not set: every call below /api is answered with 401. Set it here and at \
                 the caller, or set PROVISIONER_AUTH_DISABLED=true"
                    .to_owned(),
            );
            Access::Nobody
        }
    };
    let configured = reader.parse("STOCKADE_ALLOWED_HOSTS", |text| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<Vec<AllowedHost>, _>>()
    });
    // Callers that reach sandboxes by this name may reach the server by it.
    let own = node_host.parse::<AllowedHost>().ok();
    let allowed_hosts: AllowedHosts = configured.unwrap_or_default().into_iter().chain(own).collect();
    let metrics_need_key = reader.parse("STOCKADE_METRICS_AUTH", values::boolean).unwrap_or(false);
    ServerSettings { access, allowed_hosts, metrics_need_key }
}

#[cfg(test)]
mod tests;
