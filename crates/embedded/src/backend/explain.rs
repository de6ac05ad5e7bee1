//! How a sandbox would be launched, without launching it.

use serde::Serialize;
use stockade_core::egress::NetworkMode;
use stockade_core::{BackendError, SandboxSpec};

use super::request::Asked;
use super::{places, unlimited};
use crate::cgroup::{CgroupLayout, Controller};
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
    unlimited::refuse(&spec.resources, &facts.cgroups, settings.missing_limits)?;
    let users = if facts.privileged { places::users(0) } else { UserMap::Single };
    let files = state::files_in(&settings.state_dir, &spec.id);
    let launch = asked.launch(spec, settings, files, users);
    let steps = plan(&launch, facts, &HostSystem::probe()).map_err(|error| refused(error.to_string()))?;
    let before = [
        before("network", &network_text(&asked.network)),
        before("limits", &limits_text(&asked, &facts.cgroups)),
    ];
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

fn limits_text(asked: &Asked, layout: &CgroupLayout) -> String {
    let limits = &asked.limits;
    let limited = [
        (Controller::Cpu, format!("{}m of processors", limits.millicores)),
        (Controller::Memory, format!("{} bytes of memory", limits.memory)),
        (Controller::Pids, format!("{} processes", limits.pids)),
    ];
    let limited: Vec<String> =
        limited.into_iter().filter(|(controller, _)| layout.has(*controller)).map(|(_, text)| text).collect();
    let groups = match layout {
        CgroupLayout::None { .. } => "make no control groups".to_owned(),
        _ => format!("make control groups: {}", limited.join(", ")),
    };
    let without = unlimited::note(layout).map(|note| format!("; {note}")).unwrap_or_default();
    format!("{groups}; {} bytes of files{without}", limits.storage)
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

#[cfg(test)]
mod tests {
    use stockade_core::SandboxId;

    use super::*;
    use crate::settings::tests::mk_settings;

    fn limits_of(cgroups: CgroupLayout) -> String {
        let directory = tempfile::tempdir().unwrap();
        let facts = MachineFacts {
            namespaces: Ok(()),
            fresh_proc: true,
            mounts: true,
            overlay: true,
            seccomp: true,
            cgroups,
            ..MachineFacts::default()
        };
        let spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
        let steps = explain(&spec, &mk_settings(directory.path()), &facts).unwrap();
        assert!(steps.len() > 5, "{steps:?}");
        steps.into_iter().find(|step| step.step == "limits").unwrap().text
    }

    #[test]
    fn groups_that_cannot_be_made_are_not_told_as_made() {
        let none = limits_of(CgroupLayout::None { reason: "none is writable".into() });
        assert!(
            none.starts_with("make no control groups; 4294967296 bytes of files; not limited here"),
            "{none}"
        );
        let controllers = vec![Controller::Memory, Controller::Pids];
        let some = limits_of(CgroupLayout::V2 { base: "/x".into(), controllers });
        assert!(
            some.starts_with("make control groups: 2147483648 bytes of memory, 512 processes;"),
            "{some}"
        );
        assert!(some.contains("not limited here: processor time"), "{some}");
    }
}
