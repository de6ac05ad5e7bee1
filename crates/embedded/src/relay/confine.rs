//! The relay gives up what it does not need. What it passes on it never reads, but it is long-lived, and
//! connected to sandboxes.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::calls;
use crate::confine::seccomp;

/// When memory is short, sandboxes end before their connections do. Above what means never.
const OOM_SCORE: &str = "-900";

/// To be called while the process has one thread.
pub(super) fn restrict(low_ports: bool) -> io::Result<()> {
    // It needs a right that a container may lack. Without it the relay is as safe as anything else.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // To enter the network namespaces of sandboxes.
    let mut kept = CapabilitySet::SYS_ADMIN;
    if low_ports {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    for capability in CapabilitySet::all().difference(kept).iter() {
        // One that the kernel does not know needs no removing.
        match remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    // No process of its user reads its memory or takes its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if seccomp::is_available() {
        calls::program().apply()?;
    }
    Ok(())
}
