//! A virtual machine with Debian's own kernel and systemd: what the embedded backend meets at its users, where control
//! groups are of version 2 and the kernel is older than this machine's.
//!
//! It is emulated, so that it runs wherever tests do, some ten times slower than the machine. It has no network but its
//! own.

mod boot;
mod root;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::packages;
use crate::progress::Step;
use crate::run;

/// What makes and runs it: a program, and its Debian package.
const NEEDED: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"), (boot::EMULATOR, boot::EMULATOR_PACKAGE)];

/// A machine that can be started any number of times, always as it was made.
#[derive(Debug)]
pub struct Machine {
    /// `disk.img`, `vmlinuz` and `initrd.img`.
    directory: PathBuf,
}

impl Machine {
    /// Where it is in the cache; makes it when it is not there yet.
    ///
    /// # Errors
    /// On a machine that is not Debian, or when a package cannot be had.
    pub fn ensure() -> Result<Self> {
        packages::ensure_programs(&NEEDED)?;
        Ok(Self { directory: root::ensure()? })
    }

    /// The command that starts it with a directory of files, at `/srv`, of which it runs the script `run`; it ends when
    /// that has ended, and what that printed is in the file at `said`, its exit code in the last line ([`exit_code`]).
    /// The console of the machine is the command's standard output.
    ///
    /// # Errors
    /// When the files do not become a disk: `scratch` has to have room for them.
    pub fn start(&self, files: &Path, scratch: &Path, said: &Path) -> Result<Command> {
        let disk = scratch.join("files.img");
        make_disk(files, &disk, FILES_DISK)?;
        Ok(boot::command(&self.directory, &disk, said))
    }
}

/// The exit code of the script, from what was said; without one the machine ended before its script.
#[must_use]
pub fn exit_code(said: &str) -> Option<i32> {
    said.lines().rev().find_map(|line| line.trim().strip_prefix(root::EXIT)?.parse().ok())
}

/// Room for programs with all their symbols.
const FILES_DISK: &str = "1G";

/// A disk with these files; its unused room takes none of the machine's.
fn make_disk(files: &Path, disk: &Path, size: &str) -> Result<()> {
    let step = Step::start("making a disk of files");
    let mut make = run::command(&["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"]);
    make.arg(files).arg(disk).arg(size);
    run::output(&mut make).with_context(|| format!("cannot make {}", disk.display()))?;
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_last_line_s() {
        assert_eq!(exit_code("a\nexit code: 3\nb\nexit code: 0\n"), Some(0));
        assert_eq!(exit_code("exit code: 101\r\n"), Some(101));
        assert_eq!(exit_code("the script does not say\n"), None);
    }
}
