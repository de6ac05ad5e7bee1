//! Where the files of a sandbox lie: from settings and a specification to volumes and mounts.
//!
//! Three generations of layout are in the field; the settings choose one at start, and
//! [`StorageLayout::contract`] follows from where user data lies.

use thiserror::Error;

use crate::contract::ContractVersion;
use crate::id::{ThreadId, UserId};
use crate::mount::{self, ExtraMount, MissingDirectory, Mount, MountError, Source, Volume};
use crate::path::{ContainerPath, HostPath, PathError};
use crate::spec::SandboxSpec;

/// The base directory when nothing is configured (the reference's).
pub const DEFAULT_BASE: &str = "/.deer-flow";
/// Below this directory of a user-data claim lies what a base directory holds.
const CLAIM_BASE: &str = "deer-flow";

/// Where the skills come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skills {
    /// Three views under the base directory: public, and the user's custom and legacy ones.
    Views,
    /// One directory of the node for everyone.
    Directory(HostPath),
    /// A claim, optionally a directory of it by user or thread.
    Claim {
        /// The name of the claim.
        name: String,
        /// A directory of it, with `{user_id}` and `{thread_id}` filled in.
        sub_path: Option<SubPathTemplate>,
    },
}

/// Where user data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// `{base}/users/{user}/threads/{thread}/user-data`: the place of contract 2.
    Base,
    /// `{directory}/{thread}/user-data`: the place of contract 1.
    Threads(HostPath),
    /// The place of contract 2 inside a claim.
    Claim(String),
}

/// The storage settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageLayout {
    /// The directory everything is under unless said otherwise.
    pub base: HostPath,
    /// The directory extra mounts must come from; `None` when none was configured.
    pub extra_mount_base: Option<HostPath>,
    /// Where the skills come from.
    pub skills: Skills,
    /// Where user data lies.
    pub user_data: UserData,
    /// The contract this layout serves.
    pub contract: ContractVersion,
}

/// The volumes of a sandbox and where they appear in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// All volumes, the sidecar's included.
    pub volumes: Vec<Volume>,
    /// What the sandbox itself sees.
    pub mounts: Vec<Mount>,
    /// What the Lark sidecar sees, and only it.
    pub sidecar_mounts: Vec<Mount>,
    /// The Lark CLI pattern in use.
    pub lark: LarkPattern,
}

/// How a sandbox comes by the Lark CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LarkPattern {
    /// Not at all.
    None,
    /// Pattern A: an init container installs it.
    Runtime,
    /// Pattern B: a sidecar runs it, the sandbox has a shim.
    Broker,
}

/// Which Lark CLI patterns a server can provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LarkSupport {
    /// An init image is configured.
    pub runtime: bool,
    /// A broker image is configured.
    pub broker: bool,
}

impl StorageLayout {
    /// The volumes and mounts of one sandbox.
    ///
    /// # Errors
    /// When a requested mount is not allowed.
    pub fn resolve(&self, spec: &SandboxSpec, support: LarkSupport) -> Result<MountPlan, MountError> {
        let extra = mount::check_requested(&spec.extra_mounts, self.extra_mount_base.as_ref())?;
        let lark = match spec.lark {
            request if request.broker && support.broker => LarkPattern::Broker,
            request if request.runtime && support.runtime => LarkPattern::Runtime,
            _ => LarkPattern::None,
        };
        let mut plan = MountPlan { volumes: vec![], mounts: vec![], sidecar_mounts: vec![], lark };
        self.add_skills(&mut plan, spec);
        self.add_user_data(&mut plan, &spec.user, &spec.thread);
        let mut credentials = Vec::new();
        let mut number = 0;
        for extra in extra {
            if extra.target.as_str() == mount::LARK_RUNTIME && lark != LarkPattern::None {
                continue; // the init container fills that place
            }
            if lark == LarkPattern::Broker && sidecar_place(&extra.target).is_some() {
                credentials.push(extra);
                continue;
            }
            if self.is_already_mounted(&plan, &extra)? {
                continue;
            }
            if extra.target.as_str() == mount::UPLOAD_CONVERSIONS {
                self.check_upload_conversions(spec, &extra)?;
            }
            if let Some(mount) = within_writable(&plan, &extra) {
                plan.mounts.push(mount);
                continue;
            }
            refuse_below_later(&plan, &extra)?;
            let name = format!("extra-{number}");
            number += 1;
            let mount = self.add_volume(&mut plan, name, &extra, extra.target.clone());
            plan.mounts.push(mount);
        }
        if lark != LarkPattern::None {
            let name = "lark-cli-runtime".to_owned();
            plan.volumes.push(Volume { name: name.clone(), source: Source::Empty });
            let target = fixed(mount::LARK_RUNTIME);
            plan.mounts.push(Mount { volume: name, target, sub_path: None, read_only: true });
        }
        for extra in credentials {
            if let Some((name, place)) = sidecar_place(&extra.target) {
                let mount = self.add_volume(&mut plan, name.to_owned(), &extra, fixed(place));
                plan.sidecar_mounts.push(mount);
            }
        }
        Ok(plan)
    }

    fn add_skills(&self, plan: &mut MountPlan, spec: &SandboxSpec) {
        let user = spec.user.as_str();
        match &self.skills {
            Skills::Views => {
                for (view, path) in [
                    ("public", self.base.join(&["skills_view", "public"])),
                    ("custom", self.base.join(&["users", user, "skills_view", "custom"])),
                    ("legacy", self.base.join(&["users", user, "skills_view", "legacy"])),
                ] {
                    let name = format!("skills-{view}");
                    add_read_only_host(plan, name, path, fixed(&format!("/mnt/skills/{view}")));
                }
            }
            Skills::Directory(path) => {
                add_read_only_host(plan, "skills".to_owned(), path.clone(), fixed("/mnt/skills"));
            }
            Skills::Claim { name, sub_path } => {
                let source = Source::Claim { name: name.clone(), read_only: true };
                plan.volumes.push(Volume { name: "skills".to_owned(), source });
                plan.mounts.push(Mount {
                    volume: "skills".to_owned(),
                    target: fixed("/mnt/skills"),
                    sub_path: sub_path.as_ref().map(|template| template.fill(&spec.user, &spec.thread)),
                    read_only: true,
                });
            }
        }
    }

    fn add_user_data(&self, plan: &mut MountPlan, user: &UserId, thread: &ThreadId) {
        let (user, thread) = (user.as_str(), thread.as_str());
        let own = ["users", user, "threads", thread, "user-data"];
        let host = |path| Source::Host { path, missing: MissingDirectory::Create };
        let (source, sub_path) = match &self.user_data {
            UserData::Base => (host(self.base.join(&own)), None),
            UserData::Threads(directory) => (host(directory.join(&[thread, "user-data"])), None),
            UserData::Claim(name) => (
                Source::Claim { name: name.clone(), read_only: false },
                Some(format!("{CLAIM_BASE}/{}", own.join("/"))),
            ),
        };
        let name = "user-data".to_owned();
        plan.volumes.push(Volume { name: name.clone(), source });
        plan.mounts.push(Mount { volume: name, target: fixed("/mnt/user-data"), sub_path, read_only: false });
    }

    /// Every real client asks for `/mnt/skills/custom`, where the skill view already is, and two mounts
    /// cannot share a place.
    fn is_already_mounted(&self, plan: &MountPlan, extra: &ExtraMount) -> Result<bool, MountError> {
        let Some(present) = plan.mounts.iter().find(|mount| mount.target == extra.target) else {
            return Ok(false);
        };
        let source = plan.volumes.iter().find(|volume| volume.name == present.volume).map(|v| &v.source);
        match source {
            Some(Source::Host { path, .. }) if path.is_same(&extra.source) => Ok(true),
            Some(Source::Host { path, .. }) => Err(MountError::TargetTaken {
                path: extra.target.to_string(),
                present: path.to_string(),
                asked: extra.source.to_string(),
            }),
            _ => Ok(false),
        }
    }

    /// Conversions of uploads have exactly one good source.
    fn check_upload_conversions(&self, spec: &SandboxSpec, extra: &ExtraMount) -> Result<(), MountError> {
        let base = self.extra_mount_base.as_ref().unwrap_or(&self.base);
        let own = ["users", spec.user.as_str(), "threads", spec.thread.as_str(), "user-data"];
        let expected = base.join(&own).join(&[".upload-conversions"]);
        if extra.source.is_same(&expected) {
            return Ok(());
        }
        Err(MountError::WrongSource {
            path: extra.target.to_string(),
            expected: expected.to_string(),
            asked: extra.source.to_string(),
        })
    }

    fn add_volume(
        &self,
        plan: &mut MountPlan,
        name: String,
        extra: &ExtraMount,
        target: ContainerPath,
    ) -> Mount {
        let missing = if extra.read_only { MissingDirectory::Refuse } else { MissingDirectory::Create };
        let (source, sub_path) = match &self.user_data {
            UserData::Claim(claim) => (
                Source::Claim { name: claim.clone(), read_only: false },
                Some(format!("{CLAIM_BASE}/{}", extra.source_in_base)),
            ),
            UserData::Base | UserData::Threads(_) => {
                (Source::Host { path: extra.source.clone(), missing }, None)
            }
        };
        plan.volumes.push(Volume { name: name.clone(), source });
        Mount { volume: name, target, sub_path, read_only: extra.read_only }
    }
}

/// A source below a directory that the sandbox can write is mounted as a sub-path of that directory's volume:
/// as a directory of its own it would be looked up by name, and a symbolic link planted there would mount any
/// directory of the node. A sub-path is resolved without leaving the volume.
fn within_writable(plan: &MountPlan, extra: &ExtraMount) -> Option<Mount> {
    plan.mounts.iter().filter(|mount| !mount.read_only && mount.sub_path.is_none()).find_map(|mount| {
        let sub_path = extra.source.relative_to(host_source(plan, mount)?)?;
        Some(Mount {
            volume: mount.volume.clone(),
            target: extra.target.clone(),
            sub_path: Some(sub_path),
            read_only: extra.read_only,
        })
    })
}

/// The same with the two in the other order: what is there already lies below what is asked for and writable.
fn refuse_below_later(plan: &MountPlan, extra: &ExtraMount) -> Result<(), MountError> {
    let below = |mount: &&Mount| {
        host_source(plan, mount).is_some_and(|source| source.relative_to(&extra.source).is_some())
    };
    match plan.mounts.iter().find(below) {
        Some(mount) if !extra.read_only => Err(MountError::AboveAnother {
            path: extra.target.to_string(),
            host_path: extra.source.to_string(),
            other: mount.target.to_string(),
        }),
        _ => Ok(()),
    }
}

fn host_source<'a>(plan: &'a MountPlan, mount: &Mount) -> Option<&'a HostPath> {
    let volume = plan.volumes.iter().find(|volume| volume.name == mount.volume)?;
    match &volume.source {
        Source::Host { path, .. } => Some(path),
        Source::Claim { .. } | Source::Empty => None,
    }
}

/// The sidecar's volume name and place for a credential mount.
fn sidecar_place(target: &ContainerPath) -> Option<(&'static str, &'static str)> {
    match target.as_str() {
        mount::LARK_CONFIG => Some(("lark-cli-config", "/var/lark/config")),
        mount::LARK_LOCKS => Some(("lark-cli-locks", "/var/lark/config/locks")),
        mount::LARK_DATA => Some(("lark-cli-data", "/var/lark/data")),
        _ => None,
    }
}

fn add_read_only_host(plan: &mut MountPlan, name: String, path: HostPath, target: ContainerPath) {
    let source = Source::Host { path, missing: MissingDirectory::Refuse };
    plan.volumes.push(Volume { name: name.clone(), source });
    plan.mounts.push(Mount { volume: name, target, sub_path: None, read_only: true });
}

/// A path of this file's own.
fn fixed(path: &str) -> ContainerPath {
    match ContainerPath::new(path) {
        Ok(path) => path,
        Err(error) => unreachable!("a constant path: {error}"),
    }
}

/// A directory of the skills claim, with places for the user and the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPathTemplate(String);

/// Why a text is not a sub-path template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace that belongs to no known place.
    #[error("{template:?} may hold {{user_id}} and {{thread_id}} and no other braces")]
    UnknownPlaceholder {
        /// What was given.
        template: String,
    },
    /// Absolute, or with `..` in it.
    #[error("{template:?} must be a relative path without `..`")]
    LeavesVolume {
        /// What was given.
        template: String,
    },
    /// Not a path at all.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl SubPathTemplate {
    /// Checks the template.
    ///
    /// # Errors
    /// When it is absolute, leaves the volume, or has a place nothing fills.
    pub fn new(template: &str) -> Result<Self, TemplateError> {
        ContainerPath::new(&format!("/{template}"))?;
        if template.is_empty() || template.starts_with('/') || template.split('/').any(|part| part == "..") {
            return Err(TemplateError::LeavesVolume { template: template.to_owned() });
        }
        let rest = template.replace("{user_id}", "").replace("{thread_id}", "");
        if rest.contains(['{', '}']) {
            return Err(TemplateError::UnknownPlaceholder { template: template.to_owned() });
        }
        Ok(Self(template.to_owned()))
    }

    fn fill(&self, user: &UserId, thread: &ThreadId) -> String {
        self.0.replace("{user_id}", user.as_str()).replace("{thread_id}", thread.as_str())
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
