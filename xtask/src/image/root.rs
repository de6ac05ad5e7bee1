//! A small Debian root for sandbox images: made by mmdebstrap from the machine's own Debian mirror, once,
//! and kept as a tar.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::archive::sha256_hex;
use super::debian;
use crate::cluster::packages;
use crate::progress::Step;
use crate::{paths, run};

/// What agents use, beside the essential packages of Debian (coreutils, findutils, grep, sed, tar, ...).
const PACKAGES: [&str; 12] = [
    "bash",
    "ca-certificates",
    "curl",
    "git",
    "jq",
    "nodejs",
    "passwd",
    "procps",
    "python3",
    "python3-pip",
    "ripgrep",
    "sudo",
];

/// What nobody reads in a sandbox.
const LEFT_OUT: [&str; 5] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// Run in the root when its packages are there: the user of sandboxes, and nothing of the machine that
/// made it. Python compiles its modules again where it is used.
const FINISH: &str = "\
useradd --create-home --shell /bin/bash --uid 1000 gem
echo 'gem ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/gem
chmod 0440 /etc/sudoers.d/gem
printf '[safe]\\n\\tdirectory = *\\n' > /etc/gitconfig
install --directory --owner gem --group gem /mnt/user-data \
    /mnt/user-data/workspace /mnt/user-data/uploads /mnt/user-data/outputs
find /usr/lib/python3 /usr/lib/python3.* -name __pycache__ -prune -exec rm -r {} +
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/log/*.log /var/log/apt/* /var/cache/debconf/*-old
: > /etc/hostname
: > /etc/resolv.conf";

/// Where the tar is in the cache; makes it when it is not there yet.
///
/// # Errors
/// On a machine that is not Debian, or when a package cannot be had.
pub fn ensure_tar() -> Result<PathBuf> {
    let suite = debian::suite()?;
    let directory = paths::images_cache()?;
    let tar = directory.join(format!("root-{}.tar", cache_key(&suite)));
    if !tar.is_file() {
        packages::ensure_programs(&[("mmdebstrap", "mmdebstrap")])?;
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let step = Step::start(&format!("Debian {suite} for sandboxes (once; half a minute)"));
        // Made beside and renamed as a whole: a file in the cache is always complete.
        let partial = directory.join(format!("partial-{}.tar", std::process::id()));
        let made = make(&suite, &partial);
        let moved = made.and_then(|()| {
            std::fs::rename(&partial, &tar).with_context(|| format!("cannot make {}", tar.display()))
        });
        let _ = std::fs::remove_file(&partial);
        moved?;
        step.done();
    }
    Ok(tar)
}

fn make(suite: &str, tar: &Path) -> Result<()> {
    let mut command = run::command(&["mmdebstrap", "--quiet", "--variant=essential"]);
    // The runtime brings devices.
    command.arg("--skip=output/dev").arg(format!("--include={}", PACKAGES.join(",")));
    for path in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    command.arg(format!("--customize-hook=chroot \"$1\" sh -euc '{}'", FINISH.replace('\'', r"'\''")));
    command.arg(suite).arg(tar);
    command.args(debian::sources());
    run::output(&mut command)?;
    ensure!(tar.is_file(), "mmdebstrap has made no {}", tar.display());
    Ok(())
}

/// The same for the same recipe, release and architecture. Newer packages of a release do not change it:
/// remove the file to have them.
fn cache_key(suite: &str) -> String {
    let recipe = [&PACKAGES.join(","), &LEFT_OUT.join(","), FINISH, suite, std::env::consts::ARCH].join("\n");
    let mut key = sha256_hex(recipe.as_bytes());
    key.truncate(16);
    key
}
