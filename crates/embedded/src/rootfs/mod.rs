//! What a sandbox sees as its system.
//!
//! ```text
//!   /            layers: the sandbox's own over "root", which the launcher prepares once
//!   /usr …       layers: the sandbox's own over "places" over the machine's directory
//!   /dev /proc /sys   mounted afresh for every sandbox
//!   /mnt …       directories of the machine, as the specification says
//! ```
//!
//! "root" holds the skeleton and an `/etc` copied from the machine by an allow-list. "places" holds no files: its
//! directories lie over those of the machine into which users install, and belong to the sandbox's user, so that
//! files can be added, replaced and removed there. The machine's files themselves keep their owners and modes: what
//! only root may read outside, nobody may read inside.

mod etc;
mod mirror;
mod places;
mod stage;
mod system;

pub(crate) use stage::{FOR_EVERYBODY, Owner, Stage, StageOptions, name_of_places};
pub use system::HostSystem;
