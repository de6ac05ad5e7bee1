//! Processes of this machine, from /proc.

use std::fs;
use std::path::{Path, PathBuf};

/// All processes.
pub(crate) fn all() -> Vec<u32> {
    names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect()
}

/// The arguments a process was started with; none when it is gone.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split_terminator('\0').map(str::to_owned).collect()
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Where its descriptors lead.
pub(crate) fn descriptors(pid: u32) -> Vec<PathBuf> {
    let directory = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// The process's share of memory, in bytes: pages it shares count in parts.
pub(crate) fn proportional(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    kilobytes(&text, "Pss") * 1024
}

/// A figure of `/proc/meminfo`, in bytes.
pub(crate) fn machine(name: &str) -> u64 {
    kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), name) * 1024
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The names in a directory; none when it is gone.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
