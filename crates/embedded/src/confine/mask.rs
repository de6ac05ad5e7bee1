//! Parts of `/proc` that are the machine's and not the sandbox's.
//!
//! A process namespace hides processes, not the rest of `/proc`. As in containers, what tells of the machine is
//! covered and what changes it is read-only. `/sys` is a small file system in memory with nothing of the machine's.

/// Covered, by an empty read-only directory or by `/dev/null`. One that is not there is left out.
pub const COVERED: &[&std::ffi::CStr] = &[
    c"/proc/acpi",
    c"/proc/asound",
    // The machine's configuration and its memory. What it was started with may hold names, addresses, keys.
    c"/proc/bootconfig",
    c"/proc/cmdline",
    c"/proc/config.gz",
    c"/proc/iomem",
    c"/proc/ioports",
    c"/proc/kallsyms",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/key-users",
    c"/proc/kmsg",
    c"/proc/kpagecgroup",
    c"/proc/kpagecount",
    c"/proc/kpageflags",
    c"/proc/latency_stats",
    c"/proc/modules",
    // The names of everything that keeps time or runs, of all sandboxes.
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/slabinfo",
    c"/proc/sysrq-trigger",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/vmallocinfo",
    // Heat and power tell what the neighbours do.
    c"/proc/interrupts",
    c"/proc/softirqs",
    c"/proc/swaps",
    c"/proc/pressure",
    c"/proc/partitions",
    c"/proc/diskstats",
    c"/proc/mtrr",
    c"/proc/driver",
    c"/proc/dynamic_debug",
];

/// Shown, and not to be written to.
pub const READ_ONLY: &[&std::ffi::CStr] = &[c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_named_twice_and_all_are_below_proc() {
        let mut all: Vec<_> = COVERED.iter().chain(READ_ONLY).map(|path| path.to_str().unwrap()).collect();
        assert!(all.iter().all(|path| path.starts_with("/proc/")));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
