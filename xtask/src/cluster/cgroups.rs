//! The parent of all Pods' cgroups: one directory of ours in every hierarchy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use crate::wait::{self, Outcome};

/// Where cgroup hierarchies are mounted: several in version 1, one in version 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(parse_hierarchies(&text))
}

fn parse_hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split(' ').next()?;
            matches!(kind, "cgroup" | "cgroup2").then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Makes the cluster's cgroup in every hierarchy.
///
/// # Errors
/// When a hierarchy refuses, or none is mounted.
pub fn create(layout: &Layout) -> Result<()> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no cgroup file system is mounted; a node needs one under /sys/fs/cgroup");
    }
    for hierarchy in hierarchies {
        let directory = hierarchy.join(layout.cgroup());
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make the cgroup {}", directory.display()))?;
        // Version 1: a cpuset without CPUs takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (parent, own) = (hierarchy.join(file), directory.join(file));
            if own.is_file() && parent.is_file() {
                let value = std::fs::read_to_string(&parent)
                    .with_context(|| format!("cannot read {}", parent.display()))?;
                std::fs::write(&own, value.trim())
                    .with_context(|| format!("cannot write {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// The cgroups of this cluster that are there.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn existing(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found = hierarchies()?;
    for hierarchy in &mut found {
        hierarchy.push(layout.cgroup());
    }
    found.retain(|directory| directory.is_dir());
    Ok(found)
}

/// Removes the cluster's cgroups. Their processes have ended; the kernel may need a moment more.
///
/// # Errors
/// When one is still in use after the deadline.
pub fn remove(layout: &Layout) -> Result<()> {
    for directory in existing(layout)? {
        let removed = wait::until(Duration::from_secs(10), Duration::from_millis(20), || {
            Ok(remove_tree(&directory).map_err(|error| error.to_string()))
        })?;
        if let Outcome::TimedOut(error) = removed {
            bail!("the cgroup {} cannot be removed: {error}", directory.display());
        }
    }
    Ok(())
}

/// A cgroup's files cannot be removed, only its directories, from the leaves up.
fn remove_tree(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_once() {
        let text = "1 2 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    2 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    3 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    4 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let expect = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(parse_hierarchies(text), expect);
    }
}
