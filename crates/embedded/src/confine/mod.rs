//! What a sandbox's processes may not do, beyond what they cannot see.
//!
//! Everything here is prepared before the fork and applied after it, where nothing may be allocated.

pub mod capabilities;
pub mod landlock;
pub mod mask;
pub mod rlimits;
pub mod seccomp;

#[cfg(test)]
mod tests;
