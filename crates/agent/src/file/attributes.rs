//! Extended attributes, access control lists among them, from one file to another.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The kernel allows no more for the names, or for one value.
const LARGEST: usize = 64 * 1024;
/// The capabilities of a program. The kernel takes them away at any write, and so do we.
const CAPABILITIES: &[u8] = b"security.capability";

/// Gives `new` the attributes of `old`, and takes away those that only the directory gave it.
pub(super) fn copy(old: &File, new: &File) -> Result<(), Errno> {
    let (wanted, present) = (names(old)?, names(new)?);
    if wanted.is_empty() && present.is_empty() {
        return Ok(());
    }
    for name in &wanted {
        match give(old, new, name) {
            // Labels belong to whoever guards the system, and are given by it.
            Err(_) if is_the_systems(name) => {}
            other => other?,
        }
    }
    for name in present.difference(&wanted) {
        match rustix::fs::fremovexattr(new, name) {
            Err(_) if is_the_systems(name) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_the_systems(name: &CString) -> bool {
    name.as_bytes().starts_with(b"security.") || name.as_bytes().starts_with(b"trusted.")
}

fn names(file: &File) -> Result<BTreeSet<CString>, Errno> {
    let length = match rustix::fs::flistxattr_query(file) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(BTreeSet::new()),
        other => other?,
    };
    let mut list = vec![0u8; length.clamp(1, LARGEST)];
    let length = rustix::fs::flistxattr(file, &mut list)?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter(|name| *name != CAPABILITIES).filter_map(|name| CString::new(name).ok()).collect())
}

fn give(old: &File, new: &File, name: &CString) -> Result<(), Errno> {
    let length = rustix::fs::fgetxattr_query(old, name)?;
    let mut value = vec![0u8; length.min(LARGEST)];
    let length = if value.is_empty() { 0 } else { rustix::fs::fgetxattr(old, name, &mut value)? };
    rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty())
}
