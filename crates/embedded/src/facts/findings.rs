//! What a machine can and cannot isolate, in sentences, with the way to the rest.

use serde::Serialize;

use super::MachineFacts;
use crate::cgroup::{CgroupLayout, Controller};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Sandboxes work, with less than they could have.
    Less,
    /// Sandboxes do not work.
    Missing,
}

/// One thing about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub subject: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What is so.
    pub text: String,
    /// What to do to have the rest, where something can be done.
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, level: Level::Good, text: text.into(), remedy: None }
    }

    pub(super) fn less(subject: &'static str, text: impl Into<String>, remedy: &'static str) -> Self {
        Self { subject, level: Level::Less, text: text.into(), remedy: Some(remedy) }
    }

    fn missing(subject: &'static str, text: impl Into<String>, remedy: &'static str) -> Self {
        Self { subject, level: Level::Missing, text: text.into(), remedy: Some(remedy) }
    }
}

impl MachineFacts {
    /// What this machine can and cannot isolate, the worst not sorted out: in the order in which a sandbox is set up.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.namespaces_finding()];
        if self.namespaces.is_ok() {
            findings.extend([self.proc_finding(), self.users_finding(), self.layer_finding()]);
        }
        findings.push(cgroup_finding(&self.cgroups));
        findings.extend([self.seccomp_finding(), self.landlock_finding(), self.network_finding()]);
        findings
    }

    fn namespaces_finding(&self) -> Finding {
        match self.namespaces {
            Ok(()) if self.mounts => {
                Finding::good("namespaces", "users, processes, files, network, names, messages")
            }
            Ok(()) => Finding::missing(
                "namespaces",
                "they can be made, but nothing can be mounted in them",
                "look for a security module (AppArmor, SELinux) that confines this program: on Ubuntu set \
                 kernel.apparmor_restrict_unprivileged_userns=0 or run as root",
            ),
            Err(number) => Finding::missing(
                "namespaces",
                format!("they cannot be made: {}", std::io::Error::from_raw_os_error(number)),
                "as an ordinary user: set user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 \
                 (Debian) and kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run as root; in a \
                 container: start it with --privileged",
            ),
        }
    }

    fn proc_finding(&self) -> Finding {
        if self.fresh_proc {
            return Finding::good("/proc", "every sandbox has one of its own");
        }
        Finding::missing(
            "/proc",
            "a new one cannot be mounted, because parts of this one are covered",
            "in a container: start it with --security-opt systempaths=unconfined (Docker) or --privileged",
        )
    }

    fn users_finding(&self) -> Finding {
        match (self.privileged, self.idmapped_layers) {
            (true, true) => Finding::good("users", "every sandbox has users of its own"),
            (true, false) => Finding::less(
                "users",
                "every sandbox has users of its own, but the machine's files cannot be shown with their owners: inside \
                 they are nobody's",
                "use a kernel of 5.19 or later, and ext4, xfs or btrfs",
            ),
            (false, _) => Finding::less(
                "users",
                "all sandboxes have the user that runs the server: what a sandbox breaks out of, it has that user's rights",
                "run as root",
            ),
        }
    }

    fn layer_finding(&self) -> Finding {
        if self.overlay {
            return Finding::good("files", "system directories are covered by a private writable layer");
        }
        Finding::missing(
            "files",
            "overlayfs is not available, and without it system directories cannot be shown",
            "load the module overlay, and use a kernel of 5.12 or later",
        )
    }

    fn seccomp_finding(&self) -> Finding {
        if self.seccomp {
            return Finding::good("system calls", "those a sandbox has no use for are refused");
        }
        Finding::missing("system calls", "they cannot be filtered", "use a kernel with CONFIG_SECCOMP_FILTER")
    }

    fn landlock_finding(&self) -> Finding {
        match self.landlock_abi {
            0 | 1 => Finding::less(
                "Landlock",
                "not available; the namespaces hold without it",
                "use a kernel of 5.19 or later with landlock among the security modules (lsm=...)",
            ),
            abi => Finding::good(
                "Landlock",
                format!("ABI {abi}: a second refusal of mounts, devices and tracing"),
            ),
        }
    }

    fn network_finding(&self) -> Finding {
        if self.can_open_network() {
            return Finding::good("network", "isolated, or open through an address translation of our own");
        }
        let (text, remedy) = if !self.net.admin {
            ("sandboxes have no way out: this user may not change the machine's network", "run as root")
        } else if !self.net.veth {
            ("sandboxes have no way out: no pairs of interfaces can be made", "load the module veth")
        } else {
            ("sandboxes have no way out: the kernel has no nf_tables", "load the module nf_tables")
        };
        Finding::less("network", text, remedy)
    }
}

const CGROUP_REMEDY: &str = "run as root, or in a group that was left to you: \
     systemd-run --user --scope -p Delegate=yes stockade up";

fn cgroup_finding(layout: &CgroupLayout) -> Finding {
    let (version, place) = match layout {
        CgroupLayout::None { reason } => {
            let text =
                format!("sandboxes are limited process by process only, and cannot be paused: {reason}");
            return Finding::less("limits", text, CGROUP_REMEDY);
        }
        CgroupLayout::V1 { hierarchies } => {
            (1, hierarchies.first().map(|tree| tree.base.display().to_string()).unwrap_or_default())
        }
        CgroupLayout::V2 { base, .. } => (2, base.display().to_string()),
    };
    let wanted = [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Freezer];
    let (there, absent): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|c| layout.has(*c));
    let names = |list: &[Controller]| list.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
    if absent.is_empty() && version == 1 {
        return Finding::less(
            "limits",
            format!(
                "control groups version 1 at {place}: {}; what waits in UDP sockets counts for no limit there",
                names(&there)
            ),
            "boot with version 2 (systemd.unified_cgroup_hierarchy=1 on the kernel's command line)",
        );
    }
    if absent.is_empty() {
        return Finding::good(
            "limits",
            format!("control groups version {version} at {place}: {}", names(&there)),
        );
    }
    let text = format!("control groups version {version} at {place} lack: {}", names(&absent));
    let remedy = "let them be handed down: systemctl edit user@.service, [Service] Delegate=cpu memory pids; \
                  or run as root";
    Finding::less("limits", text, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_can_do_nothing_is_told_what_to_do_about_it() {
        let facts = MachineFacts { namespaces: Err(libc::EPERM), ..MachineFacts::default() };
        let findings = facts.findings();
        assert!(findings.iter().all(|finding| finding.level != Level::Good && finding.remedy.is_some()));
        assert!(findings.iter().any(|finding| finding.text.contains("Operation not permitted")));
    }

    #[test]
    fn version_1_of_control_groups_is_less() {
        let hierarchies =
            vec![crate::cgroup::Hierarchy { base: "/groups".into(), controllers: Controller::ALL.to_vec() }];
        let finding = cgroup_finding(&CgroupLayout::V1 { hierarchies });
        assert_eq!(finding.level, Level::Less);
        assert!(finding.text.contains("UDP") && finding.remedy.is_some_and(|fix| fix.contains("version 2")));
        let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids];
        let finding = cgroup_finding(&CgroupLayout::V2 { base: "/groups".into(), controllers });
        assert_eq!(finding.level, Level::Good);
    }

    #[test]
    fn an_ordinary_user_has_less_but_lacks_nothing() {
        let facts = MachineFacts {
            namespaces: Ok(()),
            fresh_proc: true,
            mounts: true,
            overlay: true,
            seccomp: true,
            ..MachineFacts::default()
        };
        assert!(facts.can_isolate() && !facts.can_open_network());
        assert!(facts.findings().iter().all(|finding| finding.level != Level::Missing));
    }
}
