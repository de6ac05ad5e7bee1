//! What a request comes to on this machine, before anything is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stockade_core::layout::LarkSupport;
use stockade_core::resources::{Amount, Millicores, Resources};
use stockade_core::{BackendError, SandboxSpec, signature};

use super::mounts;
use crate::launch::spec::{Bind, LaunchSpec, RootFs, UserMap, WritableLayer};
use crate::network::{Network, ResolvedPolicy};
use crate::settings::{EmbeddedSettings, WritableKind};
use crate::state::record::StoredLimits;

/// There is no Lark CLI without images.
pub(crate) const LARK: LarkSupport = LarkSupport { runtime: false, broker: false };

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
        for (what, asked, least) in [
            ("memory", memory, Resources::LEAST_MEMORY),
            ("ephemeral_storage", storage, Resources::LEAST_STORAGE),
        ] {
            if asked < least {
                return Err(refused(format!("a sandbox needs at least {least} of {what}, not {asked}")));
            }
        }
        check_variables(spec)?;
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
            known_host: Some(settings.node_host.clone()),
            agent_port: settings.container_port,
            processes: Some(self.limits.pids),
            grace: settings.delete_grace,
            only_reads: None,
            shared_memory: settings.shared_memory.0,
            groups: Vec::new(),
        }
    }
}

/// What is asked for, else the default; never below what is to be set aside.
fn limit<T: Ord + Copy>(amount: Amount<T>, default: T) -> T {
    amount.limit.unwrap_or_else(|| amount.request.map_or(default, |request| request.max(default)))
}

/// Refuses variables that are settings of the agent and that it would not start with.
fn check_variables(spec: &SandboxSpec) -> Result<(), BackendError> {
    let arguments = || ["--listen=0.0.0.0:8080", "--home=/"].map(str::to_owned);
    for (name, value) in &spec.env {
        let only_this = |asked: &str| (asked == name).then(|| value.clone());
        if stockade_agent::Options::parse(arguments(), only_this).is_err() {
            // No value: it may be a secret.
            let message = format!(
                "the variable {name} is a setting of the sandbox agent, which does not start with this value; see \
                 `stockade-agent --help`"
            );
            return Err(BackendError::Refused { message });
        }
    }
    Ok(())
}

fn environment(spec: &SandboxSpec, settings: &EmbeddedSettings) -> BTreeMap<String, String> {
    let mut variables = settings.environment.clone();
    variables.extend(spec.env.clone());
    variables
}

#[cfg(test)]
mod tests {
    use stockade_core::SandboxId;

    use super::*;

    #[test]
    fn a_limit_is_what_is_asked_for_or_the_default_and_covers_what_is_set_aside() {
        let amount = |request, limit| Amount { request, limit };
        assert_eq!(limit(amount(None, None), 7), 7);
        assert_eq!(limit(amount(None, Some(3)), 7), 3);
        assert_eq!(limit(amount(Some(2), None), 7), 7);
        assert_eq!(limit(amount(Some(9), None), 7), 9);
    }

    #[test]
    fn a_variable_that_the_agent_does_not_start_with_is_refused_without_its_value() {
        let with = |name: &str, value: &str| {
            let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
            spec.env.insert(name.to_owned(), value.to_owned());
            check_variables(&spec).map_err(|error| format!("{}: {error}", error.code()))
        };
        assert_eq!(with("TOKEN", "anything"), Ok(()));
        // Ours come first.
        assert_eq!(with("WORKSPACE", "relative"), Ok(()));
        for name in ["JWT_PUBLIC_KEY", "TICKET_TTL_SECONDS", "MAX_SHELL_SESSIONS"] {
            let refused = with(name, "s3cret").unwrap_err();
            assert!(refused.starts_with("refused: ") && refused.contains(name), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}
