//! The Debian packages that a cluster needs, installed where we may and named where we may not.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::progress::Step;
use crate::run;

/// A file that proves a package to be there, and the package.
type Need = (&'static str, &'static str);

const NAMESPACES: [Need; 3] = [("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")];
const NODE: [Need; 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
];

/// Installs what is missing for a cluster, with or without a node.
///
/// # Errors
/// When something is missing and cannot be installed: not root, no apt, or apt fails.
pub fn ensure_for_cluster(with_node: bool) -> Result<()> {
    let needs = NAMESPACES.iter().chain(if with_node { &NODE[..] } else { &[] });
    ensure(needs.copied())
}

/// Installs Go where it is missing.
///
/// # Errors
/// As [`ensure_for_cluster`].
pub fn ensure_go() -> Result<()> {
    ensure([("go", "golang-go")].into_iter())
}

fn ensure(needs: impl Iterator<Item = Need>) -> Result<()> {
    let mut packages: Vec<&str> =
        needs.filter(|(proof, _)| !is_there(proof)).map(|(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("these packages are missing: {list}; as root: apt-get install --no-install-recommends {list}");
    }
    let apt = run::find_program("apt-get").with_context(|| {
        format!("these packages are missing: {list}; there is no apt-get here, install them with your package manager")
    })?;
    let step = Step::start(&format!("installing {list}"));
    install(&apt, &packages).with_context(|| format!("cannot install {list}"))?;
    step.done();
    Ok(())
}

fn is_there(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { run::find_program(proof).is_some() }
}

fn install(apt: &Path, packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = run::command(&[apt]);
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        run::output(&mut command)
    };
    apt(&["update", "--quiet"])?;
    let policy = Policy::deny_service_starts()?;
    let mut line = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    line.extend(packages);
    let installed = apt(&line);
    drop(policy);
    installed.map(drop)
}

/// While it lives, packages do not start their services.
struct Policy {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Policy {
    fn deny_service_starts() -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match file {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("cannot write {POLICY}"))?;
                Ok(Self { ours: true })
            }
            // A policy of the machine's owner stays as it is.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("cannot write {POLICY}")),
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            // A policy that stays would only keep later services from starting by themselves.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}
