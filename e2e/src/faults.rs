//! Breaking the project's own cluster, and mending it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// An API server takes some two seconds to come back, on two busy cores ten.
const LIMIT: Duration = Duration::from_secs(120);

/// Ends and starts components of the project's own cluster.
#[derive(Debug, Clone)]
pub struct Faults {
    xtask: PathBuf,
    cluster: String,
}

impl Faults {
    pub(crate) fn new(xtask: PathBuf, cluster: String) -> Self {
        Self { xtask, cluster }
    }

    /// Kills a component as a crash would.
    pub async fn kill(&self, component: &str) {
        self.run("kill", component).await;
    }

    /// Starts a component that was killed, and waits until it is well.
    pub async fn start(&self, component: &str) {
        self.run("start", component).await;
    }

    /// Starts the API server after an absence of more than a few seconds, and all that watch it anew: they
    /// would come back by themselves, but only after their pauses between attempts, which grow to a minute.
    pub async fn end_outage(&self) {
        self.start("apiserver").await;
        for component in ["controller-manager", "scheduler", "kubelet", "proxy", "dns"] {
            self.kill(component).await;
            self.start(component).await;
        }
    }

    async fn run(&self, verb: &str, component: &str) {
        let command = Command::new(&self.xtask)
            .args(["cluster", verb, component, "--name", &self.cluster])
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(LIMIT, command).await.expect("a cluster command that ends in time");
        let output = output.expect("xtask runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cluster {verb} {component}: {stderr}");
    }
}
