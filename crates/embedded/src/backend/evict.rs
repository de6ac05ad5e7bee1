//! The end of a sandbox whose files take too much. What it has is kept: an agent that only reads shows it to whoever
//! connects, at the same address, until the sandbox is deleted.

use std::sync::Arc;
use std::time::Duration;

use stockade_core::resources::Bytes;
use tokio::time::timeout;

use super::entry::{Entry, Turn};
use super::inner::Inner;
use super::{end, start};
use crate::cgroup::SandboxCgroup;
use crate::state::record::{EVICTED, Failure, Phase};
use crate::state::usage::Room;

/// How long killed processes may take to be gone.
const END: Duration = Duration::from_secs(5);

/// Stops a sandbox whose files have grown too large.
pub(super) async fn evict(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, taken: &Room, most: &Room) {
    if entry.phase() != Phase::Live {
        return;
    }
    inner.metrics.evicted();
    let failure = Failure { reason: EVICTED.to_owned(), message: message(taken, most) };
    end::write_failed(inner, entry, turn, failure.clone());
    // Before its processes end, so that callers hear why and see no broken connection.
    end::detach(inner, entry, Some(failure.clone())).await;
    let open = entry.open();
    start::kill(&open);
    if let Some(cgroup) = &open.cgroup
        && let Err(failure) = inner.in_cgroup(cgroup, SandboxCgroup::kill).await
    {
        tracing::error!(sandbox_id = %entry.id, error = super::error::chain(&failure), "it cannot be ended");
    }
    if let Some(pidfd) = &open.pidfd
        && timeout(END, start::ended(pidfd)).await.is_err()
    {
        tracing::error!(sandbox_id = %entry.id, "its main process does not end although it was killed");
    }
    end::stopped_reading(inner, entry, turn, failure).await;
}

fn message(taken: &Room, most: &Room) -> String {
    let limit = Bytes(most.bytes);
    let what = if taken.bytes > most.bytes {
        format!("take more than its limit of {limit}")
    } else {
        format!("are more than the {} that its limit of {limit} allows", most.files)
    };
    format!(
        "its files outside /mnt {what}: nothing runs in it any more, and its files can only be read, for example with \
         GET /v1/file/download?path=PATH at its URL; save what is needed, delete it, and create it with a larger \
         resources.ephemeral_storage.limit"
    )
}
