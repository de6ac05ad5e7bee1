//! The namespace sandboxes live in: made when it is missing and that is permitted.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::call_error::CallError;
use crate::cluster::Cluster;
use crate::health::Health;

/// Makes sure of the namespace once, trying until the API server answers.
pub(crate) async fn ensure_at_start(cluster: Arc<Cluster>, health: Arc<Health>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match ensure(&cluster).await {
            Ok(()) => {
                health.namespace(None);
                return;
            }
            Err(CallError::Forbidden(message)) => {
                // Roles bound to one namespace cannot see the namespace itself, and need not.
                warn!(
                    namespace = cluster.namespace(),
                    message,
                    "cannot look at the namespace; it must be there. The reconciliation endpoint needs the \
                     right to get it"
                );
                health.namespace(None);
                return;
            }
            Err(error) => health.namespace(Some(error.to_string())),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Makes the namespace when it is missing.
pub(crate) async fn ensure(cluster: &Cluster) -> Result<(), CallError> {
    if cluster.namespace_uid().await?.is_none() {
        cluster.create_namespace().await?;
        info!(namespace = cluster.namespace(), "made the namespace");
    }
    Ok(())
}
