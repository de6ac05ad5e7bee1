//! The programs of a cluster: how each is started and how it says that it is well.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::network::{POD_NETWORK, SERVICE_NETWORK};
use super::node::CONTAINERD_SOCKET;
use super::pki::API_PORT;
use super::{build::Binaries, dns};

const ETCD_PORT: u16 = 2379;
const ETCD_METRICS_PORT: u16 = 2381;
const CONTROLLER_MANAGER_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;
const PROXY_HEALTH_PORT: u16 = 10256;
/// Where the kubelet says that it is well.
pub const KUBELET_HEALTH_PORT: u16 = 10248;

/// What runs without a node: accounts, so that Pods can be created; owners, so that a Service goes
/// with its Pod; the life of namespaces. The other thirty controllers would only start more slowly.
const CONTROL_PLANE_CONTROLLERS: [&str; 6] = [
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "clusterrole-aggregation-controller",
];

/// One program of the cluster, in the order they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The store of the API server
    Etcd,
    /// kube-apiserver
    Apiserver,
    /// kube-controller-manager
    ControllerManager,
    /// kube-scheduler
    Scheduler,
    /// The container runtime
    Containerd,
    /// The node's agent
    Kubelet,
    /// kube-proxy
    Proxy,
    /// CoreDNS
    Dns,
}

/// How to see that a component is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A URL that answers 200.
    Url(String),
    /// A Unix socket inside that accepts.
    Socket(&'static str),
}

impl Component {
    const CONTROL_PLANE: [Self; 3] = [Self::Etcd, Self::Apiserver, Self::ControllerManager];
    const ALL: [Self; 8] = [
        Self::Etcd,
        Self::Apiserver,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Containerd,
        Self::Kubelet,
        Self::Proxy,
        Self::Dns,
    ];

    /// The components of a cluster, in the order they are started.
    #[must_use]
    pub const fn of_cluster(control_plane_only: bool) -> &'static [Self] {
        if control_plane_only { &Self::CONTROL_PLANE } else { &Self::ALL }
    }

    /// Its name on the command line, in logs and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "proxy",
            Self::Dns => "dns",
        }
    }

    /// How long it may take to end after SIGTERM.
    #[must_use]
    pub const fn grace(self) -> Duration {
        Duration::from_secs(10)
    }

    /// How to see that it is well.
    #[must_use]
    pub fn check(self, node: Ipv4Addr) -> Check {
        Check::Url(match self {
            Self::Containerd => return Check::Socket(CONTAINERD_SOCKET),
            Self::Etcd => format!("http://{node}:{ETCD_METRICS_PORT}/health"),
            Self::Apiserver => format!("https://{node}:{API_PORT}/readyz"),
            Self::ControllerManager => format!("https://{node}:{CONTROLLER_MANAGER_PORT}/healthz"),
            Self::Scheduler => format!("https://{node}:{SCHEDULER_PORT}/healthz"),
            Self::Kubelet => format!("http://{node}:{KUBELET_HEALTH_PORT}/healthz"),
            Self::Proxy => format!("http://{node}:{PROXY_HEALTH_PORT}/healthz"),
            Self::Dns => format!("http://{node}:{}/ready", dns::READY_PORT),
        })
    }

    /// The program and its arguments. The same at every start, so that a component that was killed
    /// comes back as it was.
    #[must_use]
    pub fn command_line(
        self,
        layout: &Layout,
        binaries: &Binaries,
        node: Ipv4Addr,
        control_plane_only: bool,
    ) -> Vec<String> {
        let program = |name: &str| binaries.path(name).display().to_string();
        let pki = |file: &str| layout.pki(file).display().to_string();
        let config = |file: &str| layout.config(file).display().to_string();
        let mut line = match self {
            Self::Etcd => vec![
                program("etcd"),
                format!("--data-dir={}", layout.data("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{ETCD_PORT}"),
                format!("--advertise-client-urls=http://127.0.0.1:{ETCD_PORT}"),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
                format!("--listen-metrics-urls=http://{node}:{ETCD_METRICS_PORT}"),
                // Alone, it waits one of these before it elects itself; the default is a second.
                "--heartbeat-interval=10".into(),
                "--election-timeout=100".into(),
                // The data is gone with the cluster; a power cut may take it earlier.
                "--unsafe-no-fsync".into(),
            ],
            Self::Apiserver => vec![
                program("kube-apiserver"),
                format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
                "--bind-address=0.0.0.0".into(),
                format!("--secure-port={API_PORT}"),
                format!("--advertise-address={node}"),
                format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction".into(),
                "--allow-privileged".into(),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--service-account-key-file={}", pki("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
                format!("--service-account-issuer=https://kubernetes.default.svc.{}", dns::DOMAIN),
                format!("--kubelet-certificate-authority={}", pki("ca.crt")),
                format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
                format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
                "--kubelet-preferred-address-types=InternalIP".into(),
            ],
            Self::ControllerManager => vec![
                program("kube-controller-manager"),
                "--leader-elect=false".into(),
                format!("--service-account-private-key-file={}", pki("service-accounts.key")),
                format!("--root-ca-file={}", pki("ca.crt")),
                format!("--secure-port={CONTROLLER_MANAGER_PORT}"),
            ],
            Self::Scheduler => vec![
                program("kube-scheduler"),
                "--leader-elect=false".into(),
                format!("--secure-port={SCHEDULER_PORT}"),
            ],
            Self::Containerd => {
                vec!["containerd".into(), "--config".into(), config("containerd.toml")]
            }
            Self::Kubelet => vec![
                program("kubelet"),
                format!("--config={}", config("kubelet.yaml")),
                format!("--kubeconfig={}", config("kubelet.kubeconfig")),
                format!("--hostname-override={}", layout.node_name()),
                format!("--node-ip={node}"),
            ],
            Self::Proxy => vec![
                program("kube-proxy"),
                format!("--kubeconfig={}", config("proxy.kubeconfig")),
                format!("--hostname-override={}", layout.node_name()),
                format!("--cluster-cidr={POD_NETWORK}"),
                "--proxy-mode=iptables".into(),
                // The table's size belongs to the whole machine.
                "--conntrack-max-per-core=0".into(),
                "--oom-score-adj=0".into(),
                format!("--healthz-bind-address={node}:{PROXY_HEALTH_PORT}"),
            ],
            Self::Dns => vec![program("coredns"), format!("-conf={}", config("Corefile"))],
        };
        if self == Self::ControllerManager && control_plane_only {
            line.push(format!("--controllers={}", CONTROL_PLANE_CONTROLLERS.join(",")));
        }
        if matches!(self, Self::Apiserver | Self::ControllerManager | Self::Scheduler) {
            line.push(format!("--tls-cert-file={}", pki("server.crt")));
            line.push(format!("--tls-private-key-file={}", pki("server.key")));
        }
        if matches!(self, Self::ControllerManager | Self::Scheduler) {
            let kubeconfig = config(&format!("{}.kubeconfig", self.name()));
            for purpose in ["", "authentication-", "authorization-"] {
                line.push(format!("--{purpose}kubeconfig={kubeconfig}"));
            }
            line.push("--bind-address=0.0.0.0".into());
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_of_the_record() {
        for component in Component::ALL {
            let value = component.to_possible_value().unwrap();
            assert_eq!(value.get_name(), component.name());
            assert_eq!(serde_json::to_value(component).unwrap(), component.name());
        }
    }
}
