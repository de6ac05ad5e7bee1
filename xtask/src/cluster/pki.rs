//! Certificates, keys and kubeconfigs of one cluster: made anew by every `up`, readable by their
//! owner only, gone with `down`.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::layout::{Layout, write_private};
use super::network::API_SERVICE_ADDRESS;

/// Where the API server listens, in the cluster's namespace.
pub const API_PORT: u16 = 6443;

/// A client of the API server: its file names, user and group.
struct Client {
    file: &'static str,
    user: String,
    group: Option<&'static str>,
}

/// Makes everything: the authority, the server's certificate, the clients' and their kubeconfigs,
/// and the key pair that signs service account tokens.
///
/// # Errors
/// When a file cannot be written.
pub fn create(layout: &Layout, node_address: Ipv4Addr) -> Result<()> {
    let authority_key = KeyPair::generate().context("cannot make a key")?;
    let mut authority = params("stockade-test-cluster", None);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate =
        authority.self_signed(&authority_key).context("cannot make the certificate authority")?;
    write_private(&layout.pki("ca.crt"), certificate.pem())?;
    let authority = Issuer::new(authority, authority_key);

    let server = server_params(&layout.node_name(), node_address)?;
    issue(layout, "server", server, ExtendedKeyUsagePurpose::ServerAuth, &authority)?;

    for client in clients(layout) {
        let params = params(&client.user, client.group);
        issue(layout, client.file, params, ExtendedKeyUsagePurpose::ClientAuth, &authority)?;
        let path = match client.file {
            "admin" => layout.kubeconfig(),
            file => layout.config(&format!("{file}.kubeconfig")),
        };
        write_private(&path, kubeconfig(layout, client.file, node_address))?;
    }

    let tokens = KeyPair::generate().context("cannot make a key")?;
    write_private(&layout.pki("service-accounts.key"), tokens.serialize_pem())?;
    write_private(&layout.pki("service-accounts.pub"), tokens.public_key_pem())
}

fn clients(layout: &Layout) -> Vec<Client> {
    let client = |file, user: &str, group| Client { file, user: user.to_owned(), group };
    vec![
        client("admin", "admin", Some("system:masters")),
        // What the API server says to be when it asks a kubelet for logs.
        client("apiserver-kubelet", "apiserver-kubelet", Some("system:masters")),
        // All controllers by one identity: an account for each of them is what takes most of the
        // time until a new cluster has its first service account.
        client("controller-manager", "system:kube-controller-manager", Some("system:masters")),
        client("scheduler", "system:kube-scheduler", None),
        client("proxy", "system:kube-proxy", None),
        client("dns", super::dns::USER, None),
        client("kubelet", &format!("system:node:{}", layout.node_name()), Some("system:nodes")),
    ]
}

fn params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

/// One certificate for every server of the cluster: under each of these names and addresses
/// somebody reaches the API server, and by the node's the API server reaches the kubelet.
fn server_params(node_name: &str, node_address: Ipv4Addr) -> Result<CertificateParams> {
    let mut params = params("stockade-test-server", None);
    for name in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        node_name,
    ] {
        params.subject_alt_names.push(SanType::DnsName(
            name.try_into().with_context(|| format!("{name} cannot be in a certificate"))?,
        ));
    }
    for address in [Ipv4Addr::LOCALHOST, API_SERVICE_ADDRESS, node_address] {
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
    }
    Ok(params)
}

fn issue(
    layout: &Layout,
    file: &str,
    mut params: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    authority: &Issuer<'_, KeyPair>,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params
        .signed_by(&key, authority)
        .with_context(|| format!("cannot sign the certificate of {file}"))?;
    write_private(&layout.pki(&format!("{file}.key")), key.serialize_pem())?;
    write_private(&layout.pki(&format!("{file}.crt")), certificate.pem())
}

/// By the node's address, which answers on the host and inside alike. JSON is YAML too.
fn kubeconfig(layout: &Layout, file: &str, node_address: Ipv4Addr) -> String {
    let name = layout.node_name();
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{node_address}:{API_PORT}"),
            "certificate-authority": layout.pki("ca.crt"),
        }}],
        "users": [{ "name": file, "user": {
            "client-certificate": layout.pki(&format!("{file}.crt")),
            "client-key": layout.pki(&format!("{file}.key")),
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": file } }],
        "current-context": name,
    });
    format!("{config:#}\n")
}
