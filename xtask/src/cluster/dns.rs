//! The cluster's DNS: CoreDNS as a process on the node's address, so that names of Services resolve
//! inside Pods.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::api::Api;
use super::layout::Layout;

/// Who CoreDNS is to the API server.
pub const USER: &str = "stockade:dns";
/// What the names of this cluster end in.
pub const DOMAIN: &str = "cluster.local";
/// Answers 200 once all Services have been read.
pub const READY_PORT: u16 = 8181;

/// CoreDNS's configuration.
#[must_use]
pub fn corefile(layout: &Layout, node_address: std::net::Ipv4Addr) -> String {
    let kubeconfig = layout.config("dns.kubeconfig");
    // There is no way out of the cluster, so a name from outside does not exist; an answer that
    // says so is faster than a time-out.
    format!(
        ".:53 {{
    bind {node_address}
    errors
    ready {node_address}:{READY_PORT}
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig \"{}\"
        ttl 1
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
",
        kubeconfig.display()
    )
}

/// Gives CoreDNS the rights to read what it serves, and no others.
///
/// # Errors
/// When the API server refuses.
pub fn grant(api: &Api) -> Result<()> {
    let name = json!({ "name": USER });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": name,
        "rules": [
            { "apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": name,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER }],
    });
    for (resource, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{resource}");
        let (status, body) = api.post(&path, &object).context("cannot give the DNS server its rights")?;
        // 409: they are there from an earlier start.
        ensure!(matches!(status, 201 | 409), "POST {path} answered {status}: {body}");
    }
    Ok(())
}
