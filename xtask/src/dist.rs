//! `cargo xtask dist`: the static programs that are delivered, with their checksums.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo::{self, Cargo};
use crate::image::archive::sha256_hex;
use crate::progress::{Step, answer};
use crate::{cluster, elf, run, rust_target};

/// What is needed to build for an architecture on a machine of another: files or programs that prove a
/// Debian package, and the package. The C is ring's, which wants headers too.
type Needs = &'static [(&'static str, &'static str)];

/// The architectures that programs are delivered for, and what building for them on another needs.
const ARCHITECTURES: [(&str, Needs); 2] = [
    ("x86_64", &[]),
    (
        "aarch64",
        &[
            ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            ("/usr/aarch64-linux-gnu/include/stdint.h", "libc6-dev-arm64-cross"),
        ],
    ),
];

/// A program that is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The server.
    Server,
    /// The sandbox agent.
    Agent,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Server, Self::Agent];

    /// The name of its file and of its package.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "stockade",
            Self::Agent => "stockade-agent",
        }
    }

    const fn profile(self) -> &'static str {
        match self {
            Self::Server => "release",
            Self::Agent => "agent",
        }
    }
}

/// The names of the architectures.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name)
}

/// The Rust target of an architecture.
#[must_use]
pub fn target(architecture: &str) -> String {
    format!("{architecture}-unknown-linux-musl")
}

/// The command that builds a program for an architecture. Packages and the Rust target that it needs are installed
/// first.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn build_command(program: Program, architecture: &str) -> Result<std::process::Command> {
    let needs = if architecture == std::env::consts::ARCH {
        &[("cc", "gcc"), ("/usr/include/stdint.h", "libc6-dev")]
    } else {
        ARCHITECTURES.iter().find(|(name, _)| *name == architecture).map_or(&[][..], |(_, needs)| needs)
    };
    cluster::packages::ensure_programs(needs)?;
    let target = target(architecture);
    rust_target::ensure(&target)?;
    Ok(Cargo::new("build")
        .args(["--locked", "--profile", program.profile(), "--package", program.name(), "--target", &target])
        .into())
}

/// Makes sure that what was built is static, and says where it is.
///
/// # Errors
/// When it is not, or cannot be read.
pub fn check(program: Program, architecture: &str) -> Result<PathBuf> {
    let path = cargo::built(&target(architecture), program.profile(), program.name());
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    elf::ensure_static(&bytes, architecture).with_context(|| format!("{} is not static", path.display()))?;
    Ok(path)
}

/// Builds all of them into `target/dist`, with `SHA256SUMS` beside them.
///
/// # Errors
/// When one does not build or is not static.
pub fn run() -> Result<()> {
    let directory = cargo::target_directory().join("dist");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut sums = String::new();
    for architecture in architectures() {
        for program in Program::ALL {
            let (name, sum) = deliver(program, architecture, &directory)?;
            sums.push_str(&format!("{sum}  {name}\n"));
        }
    }
    let path = directory.join("SHA256SUMS");
    std::fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))?;
    answer(&path.display().to_string());
    Ok(())
}

/// Builds one into `directory`; says its file's name and checksum.
fn deliver(program: Program, architecture: &str, directory: &Path) -> Result<(String, String)> {
    let name = format!("{}-linux-{architecture}", program.name());
    let step = Step::start(&name);
    let mut command = build_command(program, architecture)?;
    run::output(&mut command)
        .with_context(|| format!("{} does not build for {architecture}", program.name()))?;
    let bytes = std::fs::read(check(program, architecture)?)?;
    let delivered = directory.join(&name);
    std::fs::write(&delivered, &bytes).with_context(|| format!("cannot write {}", delivered.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&delivered, mode)?;
    step.done();
    answer(&delivered.display().to_string());
    Ok((name, sha256_hex(&bytes)))
}
