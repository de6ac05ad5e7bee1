//! The disk and the kernel of the virtual machine: Debian of this machine's release, made by mmdebstrap, once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::archive::sha256_hex;
use crate::image::debian;
use crate::progress::Step;
use crate::{paths, run};

/// What the tests of the embedded backend use, beside a system that boots.
const PACKAGES: [&str; 15] = [
    "bash",
    "curl",
    "dbus",
    "git",
    "iproute2",
    "kmod",
    "nodejs",
    "procps",
    "python3",
    "python3-pip",
    "ripgrep",
    "systemd-sysv",
    "tzdata",
    "udev",
    "util-linux",
];

/// The port on which the machine's script is heard.
pub(super) const CHANNEL: &str = "stockade.said";
/// Before the script's exit code, in the last line.
pub(super) const EXIT: &str = "exit code: ";

/// Run in the root when its packages are there.
const FINISH: &str = r"
echo stockade-test > /etc/hostname
echo '127.0.0.1 localhost stockade-test' > /etc/hosts
echo '/dev/vda / ext4 defaults 0 1' > /etc/fstab
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > /etc/systemd/network/10.network
systemctl enable systemd-networkd stockade-test
systemctl disable getty@tty1
";

/// What it does when it has started. The module of the port is asked for by name, because nothing else may have done so
/// by then.
fn unit() -> String {
    format!(
        "[Unit]\nDescription=The script of the disk of files\nAfter=multi-user.target\nSuccessAction=poweroff-force\n\
         FailureAction=poweroff-force\n\
         [Service]\nType=oneshot\nDelegate=yes\nStandardOutput=journal+console\nStandardError=journal+console\n\
         ExecStartPre=/sbin/modprobe virtio_console\n\
         ExecStartPre=/bin/udevadm settle --timeout=60 --exit-if-exists=/dev/virtio-ports/{CHANNEL}\n\
         ExecStart=/bin/sh -c 'exec > /dev/virtio-ports/{CHANNEL} 2>&1; mount -o ro /dev/vdb /srv && sh /srv/run; \
         echo \"{EXIT}$?\"'\n\
         [Install]\nWantedBy=default.target\n"
    )
}

/// For the system, and what the tests write.
const SIZE: &str = "8G";

/// The directory of disk, kernel and initial file system in the cache; makes it when it is not there yet.
pub(super) fn ensure() -> Result<PathBuf> {
    let suite = debian::suite()?;
    let name = format!("{suite}-{}", cache_key(&suite));
    let directory = paths::machines_cache()?.join(&name);
    if directory.is_dir() {
        return Ok(directory);
    }
    let step = Step::start(&format!("a machine with Debian {suite} (once; two minutes)"));
    // Made beside and renamed as a whole: a directory in the cache is always complete.
    let partial = directory.with_file_name(format!("partial-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let made = make(&suite, &partial);
    let moved = made.and_then(|()| match std::fs::rename(&partial, &directory) {
        // Another run was faster; what it made is the same.
        Err(_) if directory.is_dir() => Ok(()),
        moved => moved.with_context(|| format!("cannot make {}", directory.display())),
    });
    let _ = std::fs::remove_dir_all(&partial);
    moved?;
    step.done();
    Ok(directory)
}

fn make(suite: &str, directory: &Path) -> Result<()> {
    let root = directory.join("root");
    let unit_file = directory.join("stockade-test.service");
    std::fs::write(&unit_file, unit()).with_context(|| format!("cannot write {}", unit_file.display()))?;
    let mut command = run::command(&["mmdebstrap", "--quiet", "--variant=essential"]);
    command.arg(format!("--include={},{}", PACKAGES.join(","), kernel()));
    command.arg(format!("--customize-hook=copy-in {} /etc/systemd/system", unit_file.display()));
    command.arg(format!("--customize-hook=chroot \"$1\" sh -euc '{}'", FINISH.replace('\'', r"'\''")));
    command.arg(suite).arg(&root).args(debian::sources());
    run::output(&mut command)?;
    for name in ["vmlinuz", "initrd.img"] {
        let newest = newest(&root.join("boot"), name)?;
        std::fs::copy(&newest, directory.join(name))
            .with_context(|| format!("cannot copy {}", newest.display()))?;
    }
    super::make_disk(&root, &directory.join("disk.img"), SIZE)?;
    std::fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))
}

/// The kernel of virtual machines, which needs least of all.
fn kernel() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux-image-cloud-arm64" } else { "linux-image-cloud-amd64" }
}

/// `vmlinuz-6.1.0-1-cloud-amd64` for `vmlinuz`. Only one kernel was installed.
fn newest(boot: &Path, name: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
    });
    found.sort();
    found.pop().with_context(|| format!("there is no {name} in {}", boot.display()))
}

/// The same for the same recipe and architecture. Newer packages of a release do not change it: remove the directory
/// to have them.
fn cache_key(suite: &str) -> String {
    let recipe = [&PACKAGES.join(","), FINISH, &unit(), SIZE, suite, std::env::consts::ARCH].join("\n");
    let mut key = sha256_hex(recipe.as_bytes());
    key.truncate(16);
    key
}
