//! From a specification to steps. Reads nothing and changes nothing: what is planned can be shown.

use std::path::{Component, Path, PathBuf};

use super::failure::Unsupported;
use super::spec::{LaunchSpec, RootFs, UserMap};
use super::step::{Layer, Overlay, OwnLayer, SetupStep};
use crate::confine::landlock;
use crate::facts::MachineFacts;
use crate::rootfs::{HostSystem, name_of_places};

/// The longest host name the kernel takes.
const HOST_NAME: usize = 64;

/// Home directory of the sandbox's user.
pub const HOME: &str = "/home/gem";

/// What every sandbox has in its environment; the specification's own wins.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", HOME),
    ("LANG", "C.UTF-8"),
    ("LOGNAME", "gem"),
    (
        "PATH",
        "/home/gem/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/games:/usr/games",
    ),
    // The system is the sandbox's own: installing into it breaks nobody else's.
    ("PIP_BREAK_SYSTEM_PACKAGES", "1"),
    ("SHELL", "/bin/bash"),
    ("TZ", "UTC"),
    ("USER", "gem"),
];

/// The steps of a launch, in their order. The order is part of what keeps a sandbox in: groups are joined before
/// anything is allocated, sources are opened before the root is changed, and rights go after their last use. What
/// differs from sandbox to sandbox comes late: it waits for nothing that could have been done ahead.
///
/// # Errors
/// The machine lacks something without which there is no sandbox.
pub fn plan(
    spec: &LaunchSpec,
    facts: &MachineFacts,
    system: &HostSystem,
) -> Result<Vec<SetupStep>, Unsupported> {
    check(spec, facts)?;
    let mut steps = vec![
        SetupStep::JoinControlGroups,
        SetupStep::NewNamespaces,
        SetupStep::FreshProc,
        SetupStep::MakeUsers(spec.users),
        SetupStep::OpenWritable(spec.writable.clone()),
        SetupStep::MakeOwnLayer,
    ];
    steps.extend(root(spec, facts, system));
    steps.extend([
        SetupStep::Devices { shared_memory: spec.shared_memory },
        SetupStep::MountSys(spec.groups.clone()),
        SetupStep::MountProc,
        SetupStep::AwaitSandbox,
    ]);
    steps.extend([
        SetupStep::EnterNetwork,
        SetupStep::HostName(host_name(spec).to_owned()),
        SetupStep::FillOwnLayer(OwnLayer { files: own_files(spec), directories: places(spec, system) }),
    ]);
    steps.extend(spec.binds.iter().cloned().map(SetupStep::Bind));
    steps.extend(spec.only_reads.iter().map(|_| SetupStep::OnlyRead));
    steps.extend([SetupStep::EnterRoot, SetupStep::LimitProcesses, SetupStep::BecomeUser(spec.users)]);
    if let Some(most) = spec.processes.filter(|_| !facts.privileged && facts.counts_processes_apart()) {
        steps.push(SetupStep::LimitUser(most));
    }
    steps.extend([SetupStep::NoNewPrivileges, SetupStep::DropCapabilities]);
    if landlock::is_useful(facts.landlock_abi) {
        steps.push(SetupStep::Landlock(facts.landlock_abi));
    }
    steps.extend([SetupStep::FilterSystemCalls, execute(spec)]);
    Ok(steps)
}

fn check(spec: &LaunchSpec, facts: &MachineFacts) -> Result<(), Unsupported> {
    if !facts.fresh_proc {
        return Err(Unsupported::Proc);
    }
    if !facts.overlay {
        return Err(Unsupported::Overlay);
    }
    if matches!(spec.users, UserMap::Range { .. }) && !facts.privileged {
        return Err(Unsupported::Users);
    }
    Ok(())
}

fn root(spec: &LaunchSpec, facts: &MachineFacts, system: &HostSystem) -> Vec<SetupStep> {
    let mapped = matches!(spec.users, UserMap::Range { .. }) && facts.idmapped_layers;
    let overlay = |target: PathBuf, name: String, layers: Vec<Layer>| {
        SetupStep::Overlay(Overlay { target, name, layers, mapped, user_marks: !facts.privileged })
    };
    match spec.root {
        RootFs::HostSystem => {
            let skeleton = vec![Layer::Own, Layer::Prepared("root".to_owned())];
            let directories = system.directories.iter().map(|directory| {
                let places = name_of_places(directory);
                let layers = vec![Layer::Prepared(places.clone()), Layer::Machine(directory.clone())];
                overlay(directory.clone(), places.replacen("places.", "", 1), layers)
            });
            std::iter::once(overlay("/".into(), "root".into(), skeleton)).chain(directories).collect()
        }
    }
}

fn host_name(spec: &LaunchSpec) -> &str {
    spec.id.get(..HOST_NAME).unwrap_or(&spec.id)
}

fn own_files(spec: &LaunchSpec) -> Vec<(PathBuf, String)> {
    let name = host_name(spec);
    let hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n");
    let servers = spec.name_server.map_or(String::new(), |address| format!("nameserver {address}\n"));
    vec![
        ("/etc/hosts".into(), hosts),
        ("/etc/hostname".into(), format!("{name}\n")),
        ("/etc/resolv.conf".into(), servers),
    ]
}

/// Where directories of the machine will be shown. Making these places in memory is cheap; the rest, below others
/// and in the system's directories, is made when its turn comes.
fn places(spec: &LaunchSpec, system: &HostSystem) -> Vec<PathBuf> {
    let links = system.links.iter().map(|(link, _)| link);
    let mounted: Vec<&Path> = ["/dev", "/proc", "/sys"].into_iter().map(Path::new).collect();
    let taken: Vec<&Path> =
        mounted.into_iter().chain(system.directories.iter().chain(links).map(PathBuf::as_path)).collect();
    let mut places: Vec<PathBuf> = Vec::new();
    for (at, bind) in spec.binds.iter().enumerate() {
        let target = &bind.target;
        let plain = target.components().all(|part| !matches!(part, Component::ParentDir));
        let above = spec.binds.iter().take(at).any(|other| target.starts_with(&other.target));
        if plain && !above && !taken.iter().any(|taken| target.starts_with(taken)) {
            places.push(target.clone());
        }
    }
    places
}

fn execute(spec: &LaunchSpec) -> SetupStep {
    let mut environment: std::collections::BTreeMap<&str, &str> = ENVIRONMENT.iter().copied().collect();
    environment.extend(spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let variable = |(name, value): (&str, &str)| format!("{name}={value}");
    let mut arguments = vec![
        format!("--listen=0.0.0.0:{}", spec.agent_port),
        format!("--home={HOME}"),
        format!("--grace={}", spec.grace.as_secs_f64()),
    ];
    // Not as a variable: every command would have it.
    arguments.extend(spec.known_host.iter().map(|host| format!("--allow-host={host}")));
    arguments.extend(spec.only_reads.iter().map(|why| format!("--only-reads={why}")));
    SetupStep::Execute { arguments, environment: environment.into_iter().map(variable).collect() }
}
