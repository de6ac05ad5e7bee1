//! What is measured: a server of ours, started for the purpose, or whatever answers at a URL.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use stockade_e2e::cluster::{self, View};
use stockade_e2e::dirs::HostDirs;
use stockade_e2e::run::Run;
use stockade_e2e::server::{Server, Start};
use tokio::time::{Duration, timeout};

use crate::Arguments;

/// Longer than any caller waits.
const LIMIT: Duration = Duration::from_secs(60);

/// A provisioner and its cluster.
pub(crate) struct Subject {
    base: String,
    key: Option<SecretString>,
    /// Its process, when it is on this machine and known.
    pub(crate) pid: Option<u32>,
    /// The namespace of its sandboxes.
    pub(crate) view: View,
    own: Option<(Server, HostDirs)>,
}

/// One connection's worth of a client: as every gateway has its own.
pub(crate) struct Caller<'a> {
    subject: &'a Subject,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Subject {
    /// Starts a server with this `SANDBOX_CREATE_WAIT`, or takes the one at the URL.
    pub(crate) async fn find(arguments: &Arguments, create_wait: Option<&str>) -> Self {
        let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set; run `cargo xtask bench`");
        let client = cluster::client(kubeconfig.as_ref()).await;
        if let Some(url) = &arguments.url {
            let view = View { client, namespace: arguments.namespace.clone() };
            let key = arguments.key.clone().map(SecretString::from);
            let base = url.trim_end_matches('/').to_owned();
            return Self { base, key, pid: arguments.pid, view, own: None };
        }
        let run = Run::from_env();
        let random = uuid::Uuid::new_v4().simple().to_string();
        let view = View { client, namespace: format!("bench-{}", &random[..8]) };
        let dirs = HostDirs::new(&run.host_dir);
        let key = SecretString::from(random);
        let environment = [
            ("K8S_NAMESPACE", view.namespace.as_str()),
            ("SANDBOX_IMAGE", &run.image),
            ("NODE_HOST", run.node_host.as_deref().unwrap_or("127.0.0.1")),
            ("KUBECONFIG_PATH", kubeconfig.to_str().expect("a plain path")),
            ("DEER_FLOW_HOST_BASE_DIR", dirs.base()),
            ("PROVISIONER_API_KEY", key.expose_secret()),
        ];
        let wait = create_wait.map(|wait| ("SANDBOX_CREATE_WAIT", wait));
        let environment = environment.into_iter().chain(wait);
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        std::fs::create_dir_all(&run.logs).expect("a directory for the log");
        let log = run.logs.join(format!("bench-server-{}.log", create_wait.unwrap_or("default")));
        let server = Server::spawn(Start { binary: &run.binary, environment, key: key.clone(), log });
        server.wait_ready().await;
        let pid = server.pid().await;
        Self { base: server.url.clone(), key: Some(key), pid, view, own: Some((server, dirs)) }
    }

    /// A new caller.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Caller { subject: self, http: HttpClient::builder(TokioExecutor::new()).build(connector) }
    }

    /// A namespace beside its own, for what the bare client writes.
    pub(crate) async fn floor_view(&self) -> View {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let view = View { client: self.view.client.clone(), namespace: format!("bench-{}", &random[..8]) };
        view.make_namespace().await;
        view
    }

    /// Whether it was started for the purpose: then its namespace is ours to fill.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Ends what was started.
    pub(crate) async fn end(self) {
        if let Some((server, _dirs)) = self.own {
            server.stop().await;
            let _ = self.view.remove_namespace().await;
        }
    }
}

impl Caller<'_> {
    /// Makes a sandbox; its URL.
    pub(crate) async fn create(&self, id: &str) -> String {
        let body = self.call("POST", "/api/sandboxes", json!({"sandbox_id": id}).to_string()).await;
        let sandbox: Value = serde_json::from_slice(&body).expect("JSON");
        sandbox["sandbox_url"].as_str().expect("a URL").to_owned()
    }

    pub(crate) async fn get(&self, id: &str) {
        self.call("GET", &format!("/api/sandboxes/{id}"), String::new()).await;
    }

    /// The whole list, read and not parsed: that is the caller's work.
    pub(crate) async fn list(&self) -> Bytes {
        self.call("GET", "/api/sandboxes", String::new()).await
    }

    pub(crate) async fn delete(&self, id: &str) {
        self.call("DELETE", &format!("/api/sandboxes/{id}"), String::new()).await;
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Bytes {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.subject.base));
        if let Some(key) = &self.subject.key {
            request = request.header("x-api-key", key.expose_secret());
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::from(body)).expect("a request");
        let exchange = async {
            let answer = self.http.request(request).await.expect("an answer");
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
            assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
            body
        };
        timeout(LIMIT, exchange).await.expect("an answer in time")
    }
}
