//! Builds Kubernetes, etcd and CoreDNS from the Go modules in `e2e/cluster`, once for each state of
//! those modules.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::packages;
use crate::image::archive::sha256_hex;
use crate::progress::Step;
use crate::{paths, run};

/// One `go build` that writes into a directory.
struct Build {
    /// Relative to `e2e/cluster`.
    module: &'static str,
    packages: &'static [&'static str],
    /// The file's name where it is not the package's last element.
    output: Option<&'static str>,
}

const BUILDS: [Build; 3] = [
    Build { module: ".", packages: &["go.etcd.io/etcd/server/v3"], output: Some("etcd") },
    Build {
        module: ".",
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        output: None,
    },
    Build { module: "dns", packages: &["."], output: Some("coredns") },
];

/// Everything that the built programs depend on, in a fixed order.
const SOURCES: [&str; 5] = ["go.mod", "go.sum", "dns/go.mod", "dns/go.sum", "dns/main.go"];

/// Programs that were built completely.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Where they are in the cache; builds what is not there yet.
    ///
    /// # Errors
    /// When Go is missing and cannot be installed, or a build fails.
    pub fn ensure() -> Result<Self> {
        let modules = paths::repository().join("e2e/cluster");
        let directory = paths::kubernetes_cache()?.join(cache_key(&modules)?);
        if !directory.is_dir() {
            build(&modules, &directory)?;
        }
        Ok(Self { directory })
    }

    /// One of the programs.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// The directory of all programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The programs ask the linker for their version: without it they would say v0.0.0, and clients and
/// kubelet would take them for something ancient.
fn linker_flags(modules: &Path) -> Result<String> {
    let go_mod = modules.join("go.mod");
    let text =
        std::fs::read_to_string(&go_mod).with_context(|| format!("cannot read {}", go_mod.display()))?;
    let kubernetes = kubernetes_version(&text)
        .with_context(|| format!("{} requires no version of k8s.io/kubernetes", go_mod.display()))?;
    let mut numbers = kubernetes.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let version = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {version}.gitVersion={kubernetes} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    ))
}

fn kubernetes_version(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        line.strip_prefix("k8s.io/kubernetes ")?.split_whitespace().next()
    })
}

/// The same for the same sources, flags and architecture; any other of these needs a build.
fn cache_key(modules: &Path) -> Result<String> {
    let mut content = Vec::new();
    for source in SOURCES {
        let path = modules.join(source);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // With lengths, no two lists of files can look alike.
        content.extend_from_slice(format!("{source} {}\n", bytes.len()).as_bytes());
        content.extend(bytes);
    }
    content.extend_from_slice(linker_flags(modules)?.as_bytes());
    content.extend_from_slice(std::env::consts::ARCH.as_bytes());
    let mut key = sha256_hex(&content);
    key.truncate(16);
    Ok(key)
}

fn build(modules: &Path, directory: &Path) -> Result<()> {
    packages::ensure_go()?;
    let parent = directory.parent().context("the cache directory has no parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Built beside and renamed as a whole: a directory in the cache is always complete.
    let partial = parent.join(format!("partial-{}", std::process::id()));
    let flags = linker_flags(modules)?;
    for build in &BUILDS {
        if let Err(error) = go_build(&modules.join(build.module), build, &flags, &partial) {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
    }
    match std::fs::rename(&partial, directory) {
        Ok(()) => Ok(()),
        // Another run was faster; its programs are the same.
        Err(_) if directory.is_dir() => Ok(std::fs::remove_dir_all(&partial)?),
        Err(error) => {
            Err(error).with_context(|| format!("cannot move the programs to {}", directory.display()))
        }
    }
}

fn go_build(module: &Path, build: &Build, flags: &str, directory: &Path) -> Result<()> {
    let go = run::find_program("go").context("go is not installed")?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let what = build.output.unwrap_or("Kubernetes");
    let mut step = Step::start(&format!("building {what} (once; takes minutes)"));

    let mut list = run::command(&[&go]);
    list.current_dir(module)
        .env("CGO_ENABLED", "0")
        .args(["list", "-mod=readonly", "-deps"])
        .args(build.packages);
    let total = run::output(&mut list)?.lines().count() as u64;

    let output = directory.join(build.output.unwrap_or_default());
    let mut command = run::command(&["nice", "-n", "5"]);
    command
        .arg(&go)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .args(["build", "-v", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"])
        .arg(&output)
        .args(build.packages)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", go.display()))?;
    let mut printed = String::new();
    // -v prints one line for each package that is compiled: that is the progress.
    for (done, line) in (1..).zip(BufReader::new(child.stderr.take().context("go has no output")?).lines()) {
        printed.push_str(&line.context("cannot read what go prints")?);
        printed.push('\n');
        step.advance(done, total);
    }
    let status = child.wait().context("cannot wait for go")?;
    if !status.success() {
        bail!("building {what} failed with {status}:\n{}", run::tail(&printed, 30));
    }
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_modules(change: Option<&str>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("dns")).unwrap();
        for source in SOURCES {
            let changed = if change == Some(source) { "// changed\n" } else { "" };
            let content = format!("require k8s.io/kubernetes v1.2.3\n{changed}");
            std::fs::write(directory.path().join(source), content).unwrap();
        }
        directory
    }

    #[test]
    fn the_key_depends_on_every_source_and_on_nothing_else() {
        let key = |change| cache_key(mk_modules(change).path()).unwrap();
        assert_eq!(key(None), key(None));
        for source in SOURCES {
            assert_ne!(key(None), key(Some(source)), "{source}");
        }
    }

    #[test]
    fn the_version_comes_from_the_requirement_not_from_a_package_or_a_replacement() {
        let go_mod = "tool (\n\tk8s.io/kubernetes/cmd/kubelet\n)\nrequire (\n\tk8s.io/kubernetes v1.2.3 // indirect\n)\n";
        assert_eq!(kubernetes_version(go_mod), Some("v1.2.3"));
        assert_eq!(kubernetes_version("module x\n"), None);
    }
}
