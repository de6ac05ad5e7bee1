//! Mounts: what a request asks for, what may be asked for, and what a sandbox gets.

use thiserror::Error;

use crate::path::{ContainerPath, HostPath, PathError};

/// A mount as a request names it, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedMount {
    /// A directory on the node.
    pub host_path: String,
    /// Where it appears in the sandbox.
    pub container_path: String,
    /// Whether the sandbox may not write to it.
    pub read_only: bool,
}

/// Why a requested mount is refused. Values are shown quoted and escaped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MountError {
    /// More mounts than one sandbox may ask for. The text is the contract's.
    #[error("Too many extra mounts; max is {max}")]
    TooMany {
        /// The most there may be.
        max: usize,
    },
    /// The host path is not a path.
    #[error("extra mount host_path: {0}")]
    HostPath(#[source] PathError),
    /// The container path is not a path.
    #[error("extra mount container_path: {0}")]
    ContainerPath(#[source] PathError),
    /// The host path leaves the directory that mounts may come from.
    #[error("extra mount host_path {path:?} is not under {base:?}")]
    OutsideBase {
        /// What was asked for, normalised.
        path: String,
        /// The only directory mounts may come from.
        base: String,
    },
    /// No directory is configured that mounts may come from.
    #[error(
        "extra mount host_path {path:?} cannot be checked: set DEER_FLOW_HOST_BASE_DIR (or a \
         THREADS_HOST_PATH that ends in `threads`) on the server"
    )]
    NoBase {
        /// What was asked for.
        path: String,
    },
    /// The container path is not one that callers may mount at.
    #[error("extra mount container_path {path:?} is not allowed; allowed are {allowed}")]
    TargetNotAllowed {
        /// What was asked for, normalised.
        path: String,
        /// The allowed ones, separated by commas.
        allowed: String,
    },
    /// Two mounts at one place.
    #[error("extra mount container_path {path:?} is given twice")]
    DuplicateTarget {
        /// The place.
        path: String,
    },
    /// Something else is already mounted there.
    #[error("extra mount container_path {path:?} is already the mount of {present:?}, not of {asked:?}")]
    TargetTaken {
        /// The place.
        path: String,
        /// The directory that is mounted there in every sandbox.
        present: String,
        /// The directory that was asked for.
        asked: String,
    },
    /// A writable directory above another that is mounted: a symbolic link planted in it could move that one.
    #[error(
        "extra mount at {path:?} must be read-only, or come before the one at {other:?}: that one's directory lies \
         inside {host_path:?}"
    )]
    AboveAnother {
        /// The place.
        path: String,
        /// The directory that was asked for.
        host_path: String,
        /// The place of the other.
        other: String,
    },
    /// The conversions directory must not be writable.
    #[error("extra mount at {path:?} must be read-only")]
    MustBeReadOnly {
        /// The place.
        path: String,
    },
    /// The conversions directory has exactly one good source.
    #[error("extra mount at {path:?} must have host_path {expected:?}, not {asked:?}")]
    WrongSource {
        /// The place.
        path: String,
        /// The one source.
        expected: String,
        /// What was asked for.
        asked: String,
    },
    /// A read-only directory that is not there.
    #[error("the directory {path:?} to mount is not there; make it first")]
    SourceMissing {
        /// The directory.
        path: String,
    },
    /// Something else than a directory.
    #[error("{path:?} to mount, or something on the way to it, is no directory")]
    SourceNotDirectory {
        /// What was to be mounted.
        path: String,
    },
    /// A name that no file system takes.
    #[error("the directory {path:?} to mount has a part that is longer than file names can be (255 bytes)")]
    SourceNameTooLong {
        /// The directory.
        path: String,
    },
    /// A directory that is reached through a symbolic link, which a sandbox may have planted.
    #[error("the directory {path:?} to mount, or one on the way to it, is a symbolic link; none is followed")]
    SourceIsLink {
        /// The directory.
        path: String,
    },
}

/// The most extra mounts one sandbox may ask for (the reference's limit).
pub const MAX_EXTRA_MOUNTS: usize = 10;

/// Where a sandbox's conversions of uploads are mounted; its source lies inside the user data.
pub const UPLOAD_CONVERSIONS: &str = "/mnt/user-data/.upload-conversions";
/// Where the user's own skills are mounted; the skill views are already there.
pub const SKILLS_CUSTOM: &str = "/mnt/skills/custom";
/// Where the Lark CLI is mounted.
pub const LARK_RUNTIME: &str = "/mnt/integrations/lark-cli/runtime";
/// Where the Lark CLI's configuration is mounted.
pub const LARK_CONFIG: &str = "/mnt/integrations/lark-cli/config";
/// Where the Lark CLI's locks are mounted.
pub const LARK_LOCKS: &str = "/mnt/integrations/lark-cli/config/locks";
/// Where the Lark CLI's data is mounted.
pub const LARK_DATA: &str = "/mnt/integrations/lark-cli/data";

/// The places a caller may mount at.
pub const ALLOWED_TARGETS: [&str; 8] = [
    "/mnt/acp-workspace",
    SKILLS_CUSTOM,
    "/mnt/skills/integrations",
    LARK_CONFIG,
    LARK_LOCKS,
    LARK_DATA,
    LARK_RUNTIME,
    UPLOAD_CONVERSIONS,
];

/// A requested mount whose paths are paths, whose place is allowed and whose source is below the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraMount {
    /// The directory on the node.
    pub source: HostPath,
    /// The same directory below the base, with `/` between its parts.
    pub source_in_base: String,
    /// Where it appears.
    pub target: ContainerPath,
    /// Whether the sandbox may not write to it.
    pub read_only: bool,
}

/// Counts the requested mounts, then checks them one by one and against each other.
///
/// # Errors
/// The first one that is wrong, by value.
pub fn check_requested(
    requested: &[RequestedMount],
    base: Option<&HostPath>,
) -> Result<Vec<ExtraMount>, MountError> {
    if requested.len() > MAX_EXTRA_MOUNTS {
        return Err(MountError::TooMany { max: MAX_EXTRA_MOUNTS });
    }
    let mut checked: Vec<ExtraMount> = Vec::with_capacity(requested.len());
    for mount in requested {
        let mount = check_one(mount, base)?;
        if checked.iter().any(|other| other.target == mount.target) {
            return Err(MountError::DuplicateTarget { path: mount.target.to_string() });
        }
        checked.push(mount);
    }
    Ok(checked)
}

fn check_one(mount: &RequestedMount, base: Option<&HostPath>) -> Result<ExtraMount, MountError> {
    let source = HostPath::new(&mount.host_path).map_err(MountError::HostPath)?;
    let target = ContainerPath::new(&mount.container_path).map_err(MountError::ContainerPath)?;
    let base = base.ok_or_else(|| MountError::NoBase { path: source.to_string() })?;
    let source_in_base = source
        .relative_to(base)
        .ok_or_else(|| MountError::OutsideBase { path: source.to_string(), base: base.to_string() })?;
    if !ALLOWED_TARGETS.contains(&target.as_str()) {
        return Err(MountError::TargetNotAllowed {
            path: target.to_string(),
            allowed: ALLOWED_TARGETS.join(", "),
        });
    }
    if target.as_str() == UPLOAD_CONVERSIONS && !mount.read_only {
        return Err(MountError::MustBeReadOnly { path: target.to_string() });
    }
    Ok(ExtraMount { source, source_in_base, target, read_only: mount.read_only })
}

/// Whether a missing directory on the node is an error or is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingDirectory {
    /// It must be there (Kubernetes: `Directory`).
    Refuse,
    /// It is made, owned by root (Kubernetes: `DirectoryOrCreate`).
    Create,
}

/// Where the content of a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A directory of the node.
    Host {
        /// The directory.
        path: HostPath,
        /// What to do when it is not there.
        missing: MissingDirectory,
    },
    /// A persistent volume claim.
    Claim {
        /// The name of the claim.
        name: String,
        /// Whether the whole volume is attached read-only.
        read_only: bool,
    },
    /// An empty directory that lives as long as the sandbox.
    Empty,
}

/// A volume of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its name, unique in the sandbox.
    pub name: String,
    /// Where its content comes from.
    pub source: Source,
}

/// A place in a sandbox where a volume, or a directory of it, appears.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// The name of the volume.
    pub volume: String,
    /// Where it appears.
    pub target: ContainerPath,
    /// A directory inside the volume; resolved so that no symbolic link leaves the volume.
    pub sub_path: Option<String>,
    /// Whether it may not be written to.
    pub read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host_path: &str, container_path: &str, read_only: bool) -> Result<Vec<ExtraMount>, String> {
        let base = HostPath::new("/srv/deer-flow").unwrap();
        let mount =
            RequestedMount { host_path: host_path.into(), container_path: container_path.into(), read_only };
        check_requested(&[mount], Some(&base)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_allowed_target_is_accepted_once() {
        let base = HostPath::new("/srv/deer-flow").unwrap();
        let all: Vec<_> = ALLOWED_TARGETS
            .iter()
            .map(|target| RequestedMount {
                host_path: "/srv/deer-flow/x".into(),
                container_path: (*target).into(),
                read_only: true,
            })
            .collect();
        assert_eq!(check_requested(&all, Some(&base)).unwrap().len(), ALLOWED_TARGETS.len());
        let twice = [
            all[0].clone(),
            RequestedMount { container_path: "/mnt/./acp-workspace/".into(), ..all[0].clone() },
        ];
        assert!(matches!(check_requested(&twice, Some(&base)), Err(MountError::DuplicateTarget { .. })));
    }

    #[test]
    fn a_refusal_names_the_value() {
        let error = |host, target, ro| check(host, target, ro).unwrap_err();
        assert!(error("relative", "/mnt/acp-workspace", true).contains("\"relative\""));
        assert!(error("/etc", "/mnt/acp-workspace", true).contains("\"/etc\""));
        assert!(error("/srv/deer-flow/../x", "/mnt/acp-workspace", true).contains("\"/srv/x\""));
        assert!(error("/srv/deer-flow/x", "/mnt/other", true).contains("\"/mnt/other\""));
        assert!(error("/srv/deer-flow/x", "/mnt/acp-workspace/../..", true).contains("\"/\""));
        assert!(error("/srv/deer-flow/x", "mnt", true).contains("\"mnt\""));
        assert!(error("/srv/deer-flow/x\u{1b}[2J", "/mnt/acp-workspace", true).contains("\\u{1b}"));
        assert!(error("/srv/deer-flow/x", UPLOAD_CONVERSIONS, false).contains("read-only"));
    }

    #[test]
    fn the_number_is_looked_at_before_any_single_mount() {
        let base = HostPath::new("/srv/deer-flow").unwrap();
        let wrong =
            RequestedMount { host_path: "relative".into(), container_path: "/etc".into(), read_only: false };
        for base in [Some(&base), None] {
            let error = check_requested(&vec![wrong.clone(); 11], base).unwrap_err();
            assert_eq!(error.to_string(), "Too many extra mounts; max is 10");
            let ten = check_requested(&vec![wrong.clone(); 10], base).unwrap_err();
            assert!(matches!(ten, MountError::HostPath(_)), "{ten}");
        }
    }

    #[test]
    fn without_a_base_nothing_can_be_mounted() {
        let mount = RequestedMount {
            host_path: "/srv/x".into(),
            container_path: "/mnt/acp-workspace".into(),
            read_only: true,
        };
        let error = check_requested(&[mount], None).unwrap_err().to_string();
        assert!(error.contains("DEER_FLOW_HOST_BASE_DIR"), "{error}");
    }
}
