//! What one test has to itself, and what every test leaves behind.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use stockade_api::Sandbox;
use tokio::time::timeout;

use crate::cluster::{self, View};
use crate::dirs::HostDirs;
use crate::faults::Faults;
use crate::run::Run;
use crate::server::{Server, Start};
use crate::testbox::Testbox;
use crate::wait;

/// The longest any test may take. The longest that is planned waits for the repair loop, some 40 s.
const LIMIT: Duration = Duration::from_secs(170);
/// How long a Pod may take from its creation to its first answer through a NodePort: 1 to 2 s on an idle
/// machine, much longer when thirty start at once on two cores.
pub const ANSWERS: Duration = Duration::from_secs(90);
/// How long a Pod may take from its deletion to its end: the grace is 5 s, and the kubelet is busy.
pub const GONE: Duration = Duration::from_secs(60);

/// One test's world.
pub struct World {
    /// What the run was told.
    pub run: Run,
    /// The test's namespace, as an administrator sees it.
    pub cluster: View,
    /// The test's directories on the node.
    pub dirs: HostDirs,
    node_host: String,
    key: SecretString,
    logs: PathBuf,
    servers: Mutex<Vec<Server>>,
}

/// Runs a test in a world of its own.
///
/// # Panics
/// When the test does, and when it leaves behind what no test may: see the crate's documentation.
pub fn scenario(test: impl AsyncFnOnce(&World)) {
    scenario_within(LIMIT, test);
}

/// As [`scenario`], for a test that takes longer.
///
/// # Panics
/// As [`scenario`].
pub fn scenario_within(limit: Duration, test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let world = World::new().await;
        let body = AssertUnwindSafe(timeout(limit, test(&world))).catch_unwind();
        match body.await {
            Ok(Ok(())) => {
                let end = AssertUnwindSafe(world.end()).catch_unwind().await;
                world.clean_up().await;
                end.unwrap_or_else(|panic| resume_unwind(panic));
            }
            failure => {
                let tail = world.describe().await;
                world.clean_up().await;
                match failure {
                    Err(panic) => resume_unwind(Box::new(format!("{}\n{tail}", text_of(&*panic)))),
                    _ => panic!("the test did not end within {} s\n{tail}", limit.as_secs()),
                }
            }
        }
    });
}

impl World {
    async fn new() -> Self {
        let run = Run::from_env();
        let random = uuid::Uuid::new_v4().simple().to_string();
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("test").replace("::", ".");
        let logs = run.logs.join(name);
        // The logs of an earlier run would be taken for this one's.
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).expect("a directory for logs");
        let client = cluster::client(&run.kubeconfig).await;
        let node_host = match &run.node_host {
            Some(host) => host.clone(),
            None => cluster::node_address(&client).await,
        };
        let cluster = View { client, namespace: format!("e2e-{}", &random[..8]) };
        let dirs = HostDirs::new(&run.host_dir);
        let key = SecretString::from(format!("e2e-key-{random}"));
        Self { run, cluster, dirs, node_host, key, logs, servers: Mutex::default() }
    }

    /// The environment of DeerFlow's compose file, current generation.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("K8S_NAMESPACE", self.cluster.namespace.as_str()),
            ("SANDBOX_IMAGE", &self.run.image),
            ("NODE_HOST", &self.node_host),
            ("KUBECONFIG_PATH", self.run.kubeconfig.to_str().expect("a plain path")),
            ("DEER_FLOW_HOST_BASE_DIR", self.dirs.base()),
            ("PROVISIONER_API_KEY", self.key.expose_secret()),
            // Tests wait for what they are about; those of the wait itself say so.
            ("SANDBOX_CREATE_WAIT", "0"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// A server that is ready, in the usual environment.
    pub async fn server(&self) -> Server {
        self.server_with(&[]).await
    }

    /// A server that is ready, with some variables changed; an empty one is left out.
    pub async fn server_with(&self, changes: &[(&str, &str)]) -> Server {
        let server = self.spawn_with(changes);
        server.wait_ready().await;
        server
    }

    /// The same without waiting.
    pub fn spawn_with(&self, changes: &[(&str, &str)]) -> Server {
        let mut environment = self.environment();
        environment.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let changed = changes.iter().filter(|(_, value)| !value.is_empty());
        environment.extend(changed.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let log = self.logs.join(format!("server-{}.log", servers.len() + 1));
        let start = Start { binary: &self.run.binary, environment, key: self.key.clone(), log };
        let server = Server::spawn(start);
        servers.push(server.clone());
        server
    }

    /// What breaks the cluster.
    ///
    /// # Panics
    /// On a cluster that is not the project's own: the runner leaves such tests out there.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let (xtask, cluster) =
            self.run.faults.clone().expect("STOCKADE_XTASK and STOCKADE_E2E_CLUSTER are set");
        Faults::new(xtask, cluster)
    }

    /// The sandbox from inside, once it answers at its URL.
    pub async fn enter(&self, sandbox: &Sandbox<'_>) -> Testbox {
        let testbox = Testbox::at(&sandbox.sandbox_url);
        let what = format!("sandbox {} answers at {}", sandbox.sandbox_id, sandbox.sandbox_url);
        let host_name = wait::until(&what, ANSWERS, async || testbox.host_name().await).await;
        assert_eq!(host_name, format!("sandbox-{}", sandbox.sandbox_id), "another Pod answers at its URL");
        testbox
    }

    /// Waits until nothing of this sandbox is left in the cluster.
    pub async fn wait_gone(&self, id: &str) {
        let what = format!("nothing is left of sandbox {id}");
        wait::until(&what, GONE, async || self.cluster.is_gone(id).await).await;
    }

    /// What no test may leave behind.
    async fn end(&self) {
        for server in self.all_servers() {
            server.stop().await;
            let log = server.log_text();
            let path = server.log_path().display();
            assert!(!log.contains(self.key.expose_secret()), "the API key is in {path}");
            assert!(!log.contains(r#""message":"panic""#), "a panic is in {path}:\n{log}");
            let torn = log.lines().find(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
            assert_eq!(torn, None, "a line that is not JSON is in {path}");
        }
    }

    async fn clean_up(&self) {
        for server in self.all_servers() {
            server.kill().await;
        }
        // Not waited for: the cluster takes some seconds, and the next test has another namespace.
        let _ = self.cluster.remove_namespace().await;
    }

    async fn describe(&self) -> String {
        let mut text = format!("--- Pods of {}\n{}", self.cluster.namespace, self.cluster.describe().await);
        for server in self.all_servers() {
            let log = server.log_text();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            text.push_str(&format!("--- the end of {}\n{tail}\n", server.log_path().display()));
        }
        text
    }

    fn all_servers(&self) -> Vec<Server> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}
