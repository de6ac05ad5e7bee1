//! Where files lie, and which mount contract follows from it.

use stockade_core::ContractVersion;
use stockade_core::layout::{DEFAULT_BASE, Skills, StorageLayout, SubPathTemplate, UserData};
use stockade_core::path::HostPath;

use super::reader::Reader;
use super::values;

/// Where files lie, and why so.
pub(super) struct Storage {
    pub(super) layout: StorageLayout,
    /// The base directory is the one that is ours when none is configured.
    pub(super) is_own_base: bool,
    /// Why this mount contract is served, as a sentence.
    pub(super) reason: String,
    pub(super) warnings: Vec<String>,
}

/// Reads every variable of the contract that says where files lie. `own_base` is the base directory when none is
/// configured, and may be mounted from; without it that is the reference's default, which may not.
pub(super) fn read(reader: &mut Reader<'_>, own_base: Option<HostPath>) -> Storage {
    let host_path = |text: &str| {
        HostPath::new(text).map_err(|error| format!("{error}; write it like /srv/deer-flow or C:\\deer-flow"))
    };
    let configured_base = reader.parse("DEER_FLOW_HOST_BASE_DIR", |text| {
        let base = host_path(text)?;
        if base.is_root() {
            return Err(format!(
                "{base} is the root: every directory of the node would be a mount's to take"
            ));
        }
        Ok(base)
    });
    let threads = reader.parse("THREADS_HOST_PATH", host_path);
    let above_threads = threads.as_ref().and_then(directory_of_threads);
    let own_base = own_base.filter(|_| configured_base.is_none() && threads.is_none());
    let is_own_base = own_base.is_some();
    let extra_mount_base = configured_base.clone().or(above_threads).or(own_base);
    let base = extra_mount_base.clone().unwrap_or_else(default_base);
    let mut warnings = Vec::new();
    let skills = read_skills(reader, host_path, &mut warnings);
    let claim = reader.parse("USERDATA_PVC_NAME", values::dns_subdomain);
    let asked = reader.parse("MOUNT_CONTRACT_VERSION", |text| {
        text.parse().ok().and_then(ContractVersion::from_number).ok_or("must be 1 or 2")
    });
    let old_place = |threads| UserData::Threads(threads);
    let (user_data, contract, reason) = match (asked, claim, configured_base, threads) {
        (Some(ContractVersion::V1), Some(claim), _, _) => {
            (UserData::Claim(claim), ContractVersion::V1, "MOUNT_CONTRACT_VERSION is 1".to_owned())
        }
        (Some(ContractVersion::V1), None, _, threads) => {
            let threads = threads.unwrap_or_else(|| base.join(&["threads"]));
            (old_place(threads), ContractVersion::V1, "MOUNT_CONTRACT_VERSION is 1".to_owned())
        }
        (_, Some(claim), _, _) => {
            let reason =
                format!("user data lies in the claim {claim} by user and thread (USERDATA_PVC_NAME)");
            (UserData::Claim(claim), ContractVersion::V2, reason)
        }
        (_, None, Some(base), _) => {
            let reason = format!("user data lies under {base} by user and thread (DEER_FLOW_HOST_BASE_DIR)");
            (UserData::Base, ContractVersion::V2, reason)
        }
        (_, None, None, None) => {
            let reason =
                format!("user data lies under {base} by user and thread (no directory is configured)");
            (UserData::Base, ContractVersion::V2, reason)
        }
        (asked, None, None, Some(threads)) => {
            if asked.is_some() {
                reader.problem(
                    "MOUNT_CONTRACT_VERSION",
                    "2",
                    "needs user data by user and thread: set DEER_FLOW_HOST_BASE_DIR or USERDATA_PVC_NAME; with \
                     THREADS_HOST_PATH alone it lies by thread only, which is contract 1",
                );
            }
            let reason =
                format!("user data lies under {threads} by thread only (THREADS_HOST_PATH alone is set)");
            (old_place(threads), ContractVersion::V1, reason)
        }
    };
    let layout = StorageLayout { base, extra_mount_base, skills, user_data, contract };
    Storage { layout, is_own_base, reason, warnings }
}

/// A directory named `threads` lies in a base directory. A root is none: every directory of the node would be
/// below it.
fn directory_of_threads(threads: &HostPath) -> Option<HostPath> {
    let (above, name) = threads.split_last()?;
    (name == "threads" && !above.is_root()).then_some(above)
}

fn default_base() -> HostPath {
    match HostPath::new(DEFAULT_BASE) {
        Ok(base) => base,
        Err(error) => unreachable!("a constant path: {error}"),
    }
}

fn read_skills(
    reader: &mut Reader<'_>,
    host_path: impl Fn(&str) -> Result<HostPath, String>,
    warnings: &mut Vec<String>,
) -> Skills {
    let claim = reader.parse("SKILLS_PVC_NAME", values::dns_subdomain);
    let sub_path = reader.parse("SKILLS_PVC_SUBPATH_TEMPLATE", SubPathTemplate::new);
    let directory = reader.parse("SKILLS_HOST_PATH", host_path);
    if claim.is_none() && sub_path.is_some() {
        warnings.push("SKILLS_PVC_SUBPATH_TEMPLATE has no effect without SKILLS_PVC_NAME".to_owned());
    }
    if claim.is_some() && directory.is_some() {
        warnings.push("SKILLS_HOST_PATH has no effect beside SKILLS_PVC_NAME".to_owned());
    }
    match (claim, directory) {
        (Some(name), _) => Skills::Claim { name, sub_path },
        (None, Some(directory)) => Skills::Directory(directory),
        (None, None) => Skills::Views,
    }
}
