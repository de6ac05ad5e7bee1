//! The mount signature: a short text that is equal exactly when two mount plans are.
//!
//! It is recorded with a sandbox when it is made, so that a later create of the same id can tell
//! whether it asks for the same sandbox.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::layout::{LarkPattern, MountPlan};
use crate::mount::{MissingDirectory, Mount, Source, Volume};

/// The signature of a plan: `v1:` and 64 hexadecimal digits.
#[must_use]
pub fn of(plan: &MountPlan) -> String {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        // Length first, so that no two lists of fields run together to the same bytes.
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    field(match plan.lark {
        LarkPattern::None => "none",
        LarkPattern::Runtime => "runtime",
        LarkPattern::Broker => "broker",
    });
    for (kind, mounts) in [("sandbox", &plan.mounts), ("sidecar", &plan.sidecar_mounts)] {
        let mut mounts: Vec<&Mount> = mounts.iter().collect();
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        for mount in mounts {
            field(kind);
            field(mount.target.as_str());
            field(mount.sub_path.as_deref().unwrap_or(""));
            field(if mount.read_only { "ro" } else { "rw" });
            match plan.volumes.iter().find(|volume| volume.name == mount.volume) {
                Some(Volume { source: Source::Host { path, missing }, .. }) => {
                    field("host");
                    field(path.as_str());
                    field(match missing {
                        MissingDirectory::Refuse => "refuse",
                        MissingDirectory::Create => "create",
                    });
                }
                Some(Volume { source: Source::Claim { name, read_only }, .. }) => {
                    field("claim");
                    field(name);
                    field(if *read_only { "ro" } else { "rw" });
                }
                Some(Volume { source: Source::Empty, .. }) => field("empty"),
                None => field("missing"),
            }
        }
    }
    let mut text = String::from("v1:");
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{ContainerPath, HostPath};

    fn mk_plan(path: &str, target: &str, read_only: bool) -> MountPlan {
        let path = HostPath::new(path).unwrap();
        MountPlan {
            volumes: vec![Volume {
                name: "extra-0".into(),
                source: Source::Host { path, missing: MissingDirectory::Refuse },
            }],
            mounts: vec![Mount {
                volume: "extra-0".into(),
                target: ContainerPath::new(target).unwrap(),
                sub_path: None,
                read_only,
            }],
            sidecar_mounts: vec![],
            lark: LarkPattern::None,
        }
    }

    #[test]
    fn it_changes_with_everything_that_is_mounted() {
        let plain = of(&mk_plan("/a", "/mnt/a", true));
        assert_eq!(plain, of(&mk_plan("/a", "/mnt/a", true)));
        assert_ne!(plain, of(&mk_plan("/b", "/mnt/a", true)));
        assert_ne!(plain, of(&mk_plan("/a", "/mnt/b", true)));
        assert_ne!(plain, of(&mk_plan("/a", "/mnt/a", false)));
        assert_ne!(plain, of(&MountPlan { lark: LarkPattern::Runtime, ..mk_plan("/a", "/mnt/a", true) }));
    }

    #[test]
    fn it_does_not_depend_on_the_order_of_the_request() {
        let mut plan = mk_plan("/a", "/mnt/a", true);
        plan.volumes.push(Volume { name: "x".into(), source: Source::Empty });
        plan.mounts.push(Mount {
            volume: "x".into(),
            target: ContainerPath::new("/mnt/x").unwrap(),
            sub_path: None,
            read_only: false,
        });
        let forwards = of(&plan);
        plan.mounts.reverse();
        plan.volumes.reverse();
        assert_eq!(forwards, of(&plan));
    }
}
