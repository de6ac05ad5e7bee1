//! How a sandbox would be launched, without launching it.

use serde::Serialize;
use stockade_core::egress::NetworkMode;
use stockade_core::{BackendError, SandboxSpec};

use super::places;
use super::request::Asked;
use crate::facts::MachineFacts;
use crate::launch::spec::UserMap;
use crate::launch::{SetupStep, plan};
use crate::network::{self, ResolvedPolicy};
use crate::rootfs::HostSystem;
use crate::settings::EmbeddedSettings;
use crate::state;

/// One step of a launch, to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its kind, in a word.
    pub step: String,
    /// What it does, without the values of variables: they may be secrets.
    pub text: String,
}

/// The steps by which this request would become a sandbox, were it the first on this machine: the network and the
/// limits that are made before the launch, and then what the launch itself does. Changes nothing.
///
/// # Errors
/// As a create of the same request: what it asks for is not allowed, or the machine cannot give it.
pub fn explain(
    spec: &SandboxSpec,
    settings: &EmbeddedSettings,
    facts: &MachineFacts,
) -> Result<Vec<Explained>, BackendError> {
    let refused = |message: String| BackendError::Refused { message };
    let best = if facts.can_open_network() { NetworkMode::Open } else { NetworkMode::Isolated };
    let policy = network::resolve(&spec.network, settings.network.unwrap_or(best));
    let policy = policy.map_err(|error| refused(error.to_string()))?;
    let asked = Asked::with_policy(spec, settings, policy)?;
    let users = if facts.privileged { places::users(0) } else { UserMap::Single };
    let files = state::files_in(&settings.state_dir, &spec.id);
    let launch = asked.launch(spec, settings, files, users);
    let steps = plan(&launch, facts, &HostSystem::probe()).map_err(|error| refused(error.to_string()))?;
    let before = [before("network", &network_text(&asked.network)), before("limits", &limits_text(&asked))];
    Ok(before.into_iter().chain(steps.iter().map(explained)).collect())
}

fn before(step: &str, text: &str) -> Explained {
    Explained { step: step.to_owned(), text: text.to_owned() }
}

fn network_text(policy: &ResolvedPolicy) -> String {
    match policy {
        ResolvedPolicy::Isolated => "make a network namespace with nothing but its loopback".to_owned(),
        ResolvedPolicy::Open(holes) if holes.is_empty() => {
            "make a network namespace with a way to the internet, and none to private addresses".to_owned()
        }
        ResolvedPolicy::Open(holes) => format!(
            "make a network namespace with a way to the internet, and to no private addresses but {} that are allowed",
            holes.len()
        ),
    }
}

fn limits_text(asked: &Asked) -> String {
    let limits = &asked.limits;
    format!(
        "make control groups: {}m of processors, {} bytes of memory, {} processes; {} bytes of files",
        limits.millicores, limits.memory, limits.pids, limits.storage
    )
}

fn explained(step: &SetupStep) -> Explained {
    let kind = match serde_json::to_value(step) {
        Ok(serde_json::Value::String(kind)) => kind,
        Ok(serde_json::Value::Object(members)) => {
            members.into_iter().next().map(|(kind, _)| kind).unwrap_or_default()
        }
        _ => String::new(),
    };
    Explained { step: kind, text: step.to_string() }
}
