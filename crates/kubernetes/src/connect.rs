//! Finding the cluster: a kubeconfig, else the service account of the Pod we run in.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::call_error::transport_text;
use crate::settings::KubernetesSettings;

/// How long a kubeconfig is waited for: another container may be writing it (the reference's figure).
pub(crate) const KUBECONFIG_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A server that does not take a connection in this time is down.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Why there is no connection to a cluster. Nothing of a kubeconfig's content is ever repeated.
#[derive(Debug, Error)]
pub enum StartError {
    /// Docker makes a directory where a bind mount's source is missing.
    #[error(
        "KUBECONFIG_PATH={path:?} is a directory, not a file. Docker makes one when the file to mount does not \
         exist on the host: remove the directory, put the kubeconfig there, start again"
    )]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// It is there and we may not read it.
    #[error(
        "KUBECONFIG_PATH={path:?} cannot be read by user {user}: it belongs to user {owner} with mode \
         {mode:03o}. Run as that user (compose: user: \"{owner}:{group}\") or give a copy this user can read"
    )]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Who we are.
        user: u32,
        /// Who owns it.
        owner: u32,
        /// The owning group.
        group: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// It is there and reading it failed.
    #[error("KUBECONFIG_PATH={path:?} cannot be read: {source}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there and is no kubeconfig.
    #[error(
        "KUBECONFIG_PATH={path:?} is not a usable kubeconfig: {problem}. `kubectl --kubeconfig {} get pods` shows \
         whether it works elsewhere", path.display()
    )]
    Invalid {
        /// The path.
        path: PathBuf,
        /// What is wrong, without the file's content.
        problem: &'static str,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no cluster: KUBECONFIG_PATH={path:?} did not appear within {} s and this is not a Pod with a service \
         account. Mount a kubeconfig there or set KUBECONFIG_PATH", waited.as_secs()
    )]
    NoCluster {
        /// The path.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The replacement of the server's address is no URL.
    #[error("K8S_API_SERVER={value:?} is not a URL such as https://host.docker.internal:6443")]
    ApiServer {
        /// The value.
        value: String,
    },
    /// The client could not be made of it.
    #[error("no client for the Kubernetes API server at {server}: {problem}")]
    Client {
        /// The server's address.
        server: String,
        /// What is wrong.
        problem: String,
    },
}

/// A client and the address of its server, without credentials.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) server: String,
}

/// Finds the cluster and makes a client. The API server is not spoken to.
pub(crate) async fn connect(settings: &KubernetesSettings, wait: Duration) -> Result<Connection, StartError> {
    let mut config = configuration(&settings.kubeconfig, settings.kubeconfig_is_set, wait).await?;
    if let Some(server) = &settings.api_server {
        let invalid = || StartError::ApiServer { value: server.clone() };
        config.cluster_url = server.parse().map_err(|_| invalid())?;
        config.accept_invalid_certs = true;
        config.root_cert_file = None;
        config.tls_server_name = None;
    }
    if config.accept_invalid_certs {
        // Nothing is checked against it, but without a list the system's is loaded, and a small image has none.
        config.root_cert = Some(Vec::new());
    }
    config.connect_timeout = Some(CONNECT_LIMIT);
    // Each call has a deadline and a retry policy of ours; a second one below would break both.
    config.default_retry = false;
    let server = address(&config.cluster_url);
    let client = Client::try_from(config)
        .map_err(|error| StartError::Client { server: server.clone(), problem: transport_text(&error) })?;
    Ok(Connection { client, server })
}

async fn configuration(path: &Path, is_set: bool, wait: Duration) -> Result<Config, StartError> {
    let in_pod = Config::incluster().ok();
    // In a Pod, a file that nobody asked for is not worth waiting for.
    let wait = if in_pod.is_some() && !is_set { Duration::ZERO } else { wait };
    let found = wait_for(path, wait).await?;
    if found {
        info!(path = %path.display(), "using the kubeconfig");
        return read(path).await;
    }
    if is_set && in_pod.is_some() {
        warn!(path = %path.display(), "KUBECONFIG_PATH did not appear; using the cluster this Pod runs in instead");
    } else {
        info!("no kubeconfig; using the Pod's service account");
    }
    in_pod.ok_or_else(|| StartError::NoCluster { path: path.to_owned(), waited: wait })
}

/// Whether the file is there, sooner or later.
async fn wait_for(path: &Path, wait: Duration) -> Result<bool, StartError> {
    let until = Instant::now() + wait;
    let mut told = false;
    loop {
        match tokio::fs::metadata(path).await {
            Ok(metadata) if metadata.is_dir() => {
                return Err(StartError::Directory { path: path.to_owned() });
            }
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StartError::Read { path: path.to_owned(), source }),
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        if !told {
            warn!(path = %path.display(), seconds = wait.as_secs(), "waiting for the kubeconfig to appear");
            told = true;
        }
        tokio::time::sleep(LOOK_AGAIN.min(until - Instant::now())).await;
    }
}

async fn read(path: &Path) -> Result<Config, StartError> {
    let owned = || path.to_owned();
    match tokio::fs::File::open(path).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(match tokio::fs::metadata(path).await {
                Ok(metadata) => unreadable(path, &metadata),
                Err(source) => StartError::Read { path: owned(), source },
            });
        }
        Err(source) => return Err(StartError::Read { path: owned(), source }),
    }
    // The parser's own message may quote the file, and the file holds keys.
    let invalid = |problem| StartError::Invalid { path: owned(), problem };
    let file = Kubeconfig::read_from(path).map_err(|_| invalid("it is not valid YAML of that form"))?;
    if file.current_context.as_deref().unwrap_or_default().is_empty() {
        return Err(invalid("it has no current-context"));
    }
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|_| {
        invalid("its current context, cluster or user is missing, or a certificate file it names is")
    })
}

#[cfg(unix)]
fn unreadable(path: &Path, metadata: &Metadata) -> StartError {
    use std::os::unix::fs::MetadataExt;
    StartError::Unreadable {
        path: path.to_owned(),
        user: rustix::process::geteuid().as_raw(),
        owner: metadata.uid(),
        group: metadata.gid(),
        mode: metadata.mode() & 0o777,
    }
}

#[cfg(not(unix))]
fn unreadable(path: &Path, _: &Metadata) -> StartError {
    StartError::Read { path: path.to_owned(), source: io::ErrorKind::PermissionDenied.into() }
}

/// Scheme, host and port: a URL may hold a user and a password.
fn address(url: &http::Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("https");
    let host = url.host().unwrap_or_default();
    match url.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
