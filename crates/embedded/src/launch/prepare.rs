//! What the launcher does once, so that no sandbox has to.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use super::child::{self, Prepared};
use super::failure::{At, Problem, StepFailure};
use super::sys;
use crate::facts::MachineFacts;
use crate::rootfs::{HostSystem, Owner, Stage, StageOptions};

/// Prepares everything, in a mount namespace of this process's own.
pub(super) fn all(
    facts: &MachineFacts,
    system: &HostSystem,
    stage: &Path,
    hidden: &[PathBuf],
    agent: Option<&Path>,
) -> Result<Prepared, StepFailure> {
    leave_mounts().map_err(|problem| problem.of(&"leave the machine's mounts"))?;
    let owner = match (facts.privileged, facts.idmapped_layers) {
        (true, true) => Owner::Mapped { in_memory: facts.idmapped_memory },
        (true, false) => Owner::Everybody,
        (false, _) => Owner::Ours,
    };
    let options = StageOptions { at: stage, system, owner, hidden };
    let stage = Stage::prepare(&options).map_err(|problem| problem.of(&"prepare the shared layers"))?;
    let copy = |path: &Path| sealed_copy(path).map_err(|problem| problem.of(&"copy the agent"));
    let program = copy(Path::new("/proc/self/exe"))?;
    let agent = agent.map(copy).transpose()?;
    let nothing = child::nothing().map_err(|problem| problem.of(&"open standard input"))?;
    Ok(Prepared { stage, program, agent, nothing })
}

/// What is mounted outside later still appears here, as sources of sandboxes to come; not the other way round.
fn leave_mounts() -> Result<(), Problem> {
    sys::unshare(libc::CLONE_NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// A copy of the program that nobody can write to, and that has no path: inside there is no descriptor of a file of
/// the machine's, and its memory is shared by all sandboxes.
fn sealed_copy(path: &Path) -> Result<OwnedFd, Problem> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create("stockade-agent", flags | MemfdFlags::EXEC) {
        // Older kernels know no other kind.
        Err(Errno::INVAL) => rustix::fs::memfd_create("stockade-agent", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    File::open(path).and_then(|mut program| io::copy(&mut program, &mut copy)).at(path)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
