//! The namespace sandboxes live in: made when it is missing and that is permitted.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::call_error::CallError;
use crate::cluster::Cluster;
use crate::health::Health;

/// Makes sure of the namespace once, trying until it is there.
pub(crate) async fn ensure_at_start(cluster: Arc<Cluster>, health: Arc<Health>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let namespace = cluster.namespace();
    let mut told = false;
    loop {
        let problem = match cluster.namespace_uid().await {
            Ok(Some(_)) => break,
            Err(CallError::Forbidden(said)) => {
                // A role need not let us see the namespace itself.
                warn!(
                    namespace,
                    said, "cannot look at the namespace; without that right, no reconciliation endpoint"
                );
                break;
            }
            Ok(None) => match cluster.create_namespace().await {
                Ok(()) => {
                    info!(namespace, "made the namespace");
                    break;
                }
                Err(error) => format!(
                    "namespace '{namespace}' does not exist and cannot be made ({error}): kubectl create namespace \
                     {namespace}"
                ),
            },
            Err(error) => error.to_string(),
        };
        if !told {
            warn!(problem, "the namespace is not there yet");
            told = true;
        }
        health.namespace(Some(problem));
        tokio::time::sleep(backoff.next()).await;
    }
    health.namespace(None);
}

/// Makes the namespace when it is missing.
pub(crate) async fn ensure(cluster: &Cluster) -> Result<(), CallError> {
    if cluster.namespace_uid().await?.is_none() {
        cluster.create_namespace().await?;
        info!(namespace = cluster.namespace(), "made the namespace");
    }
    Ok(())
}
