//! The Debian packages that the test cluster and the tests need, installed where we may and named where we may not.

use std::path::{Path, PathBuf};

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

/// Installs the packages of programs that are missing: pairs of a program and its package.
///
/// # Errors
/// As [`ensure_for_cluster`].
pub fn ensure_programs(needs: &[(&'static str, &'static str)]) -> Result<()> {
    ensure(needs.iter().copied())
}

/// The Go release from which on a module file may name its tools, as ours do.
const GO: (u32, u32) = (1, 24);

/// Installs Go where it is missing, and makes sure that it is new enough.
///
/// # Errors
/// As [`ensure_for_cluster`], and when the Go that is there is too old.
pub fn ensure_go() -> Result<()> {
    ensure([("go", "golang-go")].into_iter())?;
    let go = run::find_program("go").context("go was installed and is not found; is it in PATH?")?;
    let version = run::output(run::command(&[&go]).args(["env", "GOVERSION", "GOTOOLCHAIN"]))?;
    let mut lines = version.lines();
    let (version, toolchain) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let release = go_release(version).with_context(|| format!("go says its version is {version:?}"))?;
    // From 1.21 on, an older Go fetches the one that go.mod asks for, unless told not to.
    let fetches = release >= (1, 21) && toolchain != "local";
    if release < GO && !fetches {
        bail!(
            "{} is {version}, and the test cluster needs go1.24 or newer; install one and put it first in PATH",
            go.display()
        );
    }
    Ok(())
}

/// Installs Python where it is missing, with what makes virtual environments: Debian has that in a package
/// of its own. Says which Python it is, in words that stay the same while it does.
///
/// # Errors
/// As [`ensure_for_cluster`], and when the Python that is there makes no virtual environments.
pub fn ensure_python() -> Result<PathBuf> {
    ensure([("python3", "python3")].into_iter())?;
    let python = run::find_program("python3").context("python3 was installed and is not found in PATH")?;
    // A version manager's python3 is a script; the interpreter itself is what it runs.
    let itself = "import sys; print(sys.executable)";
    let python = PathBuf::from(run::output(run::command(&[&python]).args(["-c", itself]))?.trim_end());
    let makes_environments = || run::output(run::command(&[&python]).args(["-c", "import ensurepip, venv"]));
    if makes_environments().is_err() {
        // For Debian's own Python this helps; for another the message below is about that one.
        install_missing(&["python3-venv"])?;
        makes_environments().with_context(|| {
            format!("{} cannot make a virtual environment; put one first in PATH that can", python.display())
        })?;
    }
    Ok(python)
}

fn go_release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    // "1.26rc1" is 1.26.
    let minor = numbers.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

fn ensure(needs: impl Iterator<Item = Need>) -> Result<()> {
    let mut packages: Vec<&str> =
        needs.filter(|(proof, _)| !is_there(proof)).map(|(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install_missing(&packages) }
}

fn install_missing(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("these packages are missing: {list}; as root: apt-get install --no-install-recommends {list}");
    }
    let apt = run::find_program("apt-get").with_context(|| {
        format!("these packages are missing: {list}; there is no apt-get here, install them with your package manager")
    })?;
    let step = Step::start(&format!("installing {list}"));
    install(&apt, packages).with_context(|| format!("cannot install {list}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read_as_go_prints_them() {
        assert_eq!(go_release("go1.26.8"), Some((1, 26)));
        assert_eq!(go_release("go1.25rc1"), Some((1, 25)));
        assert_eq!(go_release("devel +abc"), None);
    }

    #[test]
    fn a_program_and_a_path_can_prove_a_package() {
        assert!(is_there("sh") && is_there("/proc"));
        assert!(!is_there("no-such-program") && !is_there("/no/such/path"));
    }
}
