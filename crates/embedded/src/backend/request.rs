//! What a request comes to on this machine, before anything is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stockade_core::backend::Conflict;
use stockade_core::layout::LarkSupport;
use stockade_core::resources::{Amount, Bytes, Millicores};
use stockade_core::{BackendError, ContractVersion, SandboxSpec, signature};

use super::mounts;
use crate::launch::spec::{Bind, LaunchSpec, RootFs, UserMap, WritableLayer};
use crate::network::{Network, ResolvedPolicy};
use crate::settings::{EmbeddedSettings, WritableKind};
use crate::state::record::{Record, StoredLimits};

/// There is no Lark CLI without images.
pub(crate) const LARK: LarkSupport = LarkSupport { runtime: false, broker: false };
/// Below this an agent with one command does not run.
const LEAST_MEMORY: Bytes = Bytes(32 << 20);
/// Below this nothing can be installed or written.
const LEAST_STORAGE: Bytes = Bytes(1 << 20);

/// A request, checked against this machine and its settings.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) signature: String,
    pub(crate) binds: Vec<Bind>,
    pub(crate) limits: StoredLimits,
    pub(crate) network: ResolvedPolicy,
    pub(crate) environment: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn of(
        spec: &SandboxSpec,
        settings: &EmbeddedSettings,
        network: &Network,
    ) -> Result<Self, BackendError> {
        let policy = network.resolve(&spec.network);
        let policy = policy.map_err(|error| BackendError::Refused { message: error.to_string() })?;
        Self::with_policy(spec, settings, policy)
    }

    /// The same where the network is decided.
    pub(crate) fn with_policy(
        spec: &SandboxSpec,
        settings: &EmbeddedSettings,
        policy: ResolvedPolicy,
    ) -> Result<Self, BackendError> {
        let plan = settings.storage.resolve(spec, LARK)?;
        let refused = |message: String| BackendError::Refused { message };
        let resources = &spec.resources;
        let defaults = &settings.limits;
        let Millicores(millicores) = limit(resources.cpu, defaults.cpu);
        let memory = limit(resources.memory, defaults.memory);
        let storage = limit(resources.ephemeral_storage, defaults.storage);
        for (what, asked, least) in
            [("memory", memory, LEAST_MEMORY), ("ephemeral_storage", storage, LEAST_STORAGE)]
        {
            if asked < least {
                return Err(refused(format!("a sandbox needs at least {least} of {what}, not {asked}")));
            }
        }
        Ok(Self {
            signature: signature::of(&plan),
            binds: mounts::binds(&plan, &settings.storage, settings.missing_views),
            limits: StoredLimits { millicores, memory: memory.0, storage: storage.0, pids: defaults.pids },
            network: policy,
            environment: environment(spec, settings),
        })
    }

    /// How it is launched, in its place.
    pub(crate) fn launch(
        &self,
        spec: &SandboxSpec,
        settings: &EmbeddedSettings,
        files: PathBuf,
        users: UserMap,
    ) -> LaunchSpec {
        LaunchSpec {
            id: spec.id.to_string(),
            users,
            root: RootFs::HostSystem,
            writable: match settings.writable {
                WritableKind::Disk => WritableLayer::Disk(files),
                WritableKind::Tmpfs => WritableLayer::Tmpfs { bytes: self.limits.storage },
            },
            binds: self.binds.clone(),
            environment: self.environment.clone(),
            name_server: None,
            agent_port: settings.container_port,
            processes: Some(self.limits.pids),
            grace: settings.delete_grace,
        }
    }
}

/// What is asked for, else the default; never below what is to be set aside.
fn limit<T: Ord + Copy>(amount: Amount<T>, default: T) -> T {
    amount.limit.unwrap_or_else(|| amount.request.map_or(default, |request| request.max(default)))
}

fn environment(spec: &SandboxSpec, settings: &EmbeddedSettings) -> BTreeMap<String, String> {
    let mut variables = settings.environment.clone();
    variables.extend(spec.env.clone());
    // Callers that reach sandboxes by this name send it; the agent knows no others than addresses.
    variables.insert("STOCKADE_ALLOWED_HOSTS".to_owned(), settings.node_host.clone());
    variables
}

/// Whether what is there is what is asked for. Under contract 1 mounts do not count.
pub(crate) fn check_same(
    record: &Record,
    spec: &SandboxSpec,
    asked: &Asked,
    contract: ContractVersion,
) -> Result<(), BackendError> {
    let conflict = |conflict| Err(BackendError::Conflict { id: spec.id.clone(), conflict });
    if record.identity.user != spec.user {
        return conflict(Conflict::User);
    }
    if record.identity.thread != spec.thread {
        return conflict(Conflict::Thread);
    }
    if contract >= ContractVersion::V2 && record.signature != asked.signature {
        return conflict(Conflict::Mounts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_is_asked_for_or_the_default_and_covers_what_is_set_aside() {
        let amount = |request, limit| Amount { request, limit };
        assert_eq!(limit(amount(None, None), 7), 7);
        assert_eq!(limit(amount(None, Some(3)), 7), 3);
        assert_eq!(limit(amount(Some(2), None), 7), 7);
        assert_eq!(limit(amount(Some(9), None), 7), 9);
    }
}
