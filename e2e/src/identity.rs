//! Servers that may do only so much: service accounts, and kubeconfigs for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;

use crate::cluster::View;

/// Who the server is in a test of rights.
const ACCOUNT: &str = "stockade";

/// Makes a service account in the namespace with these rights there, and a kubeconfig for it in
/// `directory`.
pub async fn kubeconfig_with(view: &View, admin: &Path, rules: Vec<PolicyRule>, directory: &Path) -> PathBuf {
    let (client, namespace) = (view.client.clone(), view.namespace.as_str());
    let params = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = ServiceAccount { metadata: named(ACCOUNT), ..ServiceAccount::default() };
    accounts.create(&params, &account).await.expect("a service account");
    let role = Role { metadata: named(ACCOUNT), rules: Some(rules) };
    let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
    roles.create(&params, &role).await.expect("a role");
    let binding = RoleBinding {
        metadata: named(ACCOUNT),
        role_ref: role_ref("Role", ACCOUNT),
        subjects: Some(vec![subject(namespace)]),
    };
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    bindings.create(&params, &binding).await.expect("a role binding");
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let token = accounts.create_token_request(ACCOUNT, &params, &request).await.expect("a token");
    let token = token.status.expect("a token").token;
    write_kubeconfig(admin, &token, directory)
}

/// A rule, briefly: resources of one API group, and verbs.
#[must_use]
pub fn rule(resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    let api_group = "rbac.authorization.k8s.io".to_owned();
    RoleRef { api_group, kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: ACCOUNT.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}

/// The administrator's kubeconfig with the token in place of the administrator.
fn write_kubeconfig(admin: &Path, token: &str, directory: &Path) -> PathBuf {
    let mut config: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(&std::fs::read_to_string(admin).expect("a kubeconfig")).expect("YAML");
    let name = config["users"][0]["name"].clone();
    let user = serde_json::json!([{ "name": name, "user": { "token": token } }]);
    config.insert("users".to_owned(), user);
    let path = directory.join("account.kubeconfig");
    // JSON is YAML.
    std::fs::write(&path, serde_json::to_string(&config).expect("JSON")).expect("a kubeconfig");
    path
}
