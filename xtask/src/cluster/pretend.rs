//! Makes the node look larger than the machine, to the kubelet only: Pods see the real one.
//!
//! A sandbox requests 100m of CPU and 256 MiB and uses next to nothing. By its true size a machine
//! of two cores would take twenty of them, and the tests want hundreds. The kubelet has no setting
//! for its capacity; it reads files of the kernel, and those can be mounted over.

use std::path::Path;

use anyhow::{Context, Result};

use super::layout::Layout;
use super::namespace::Holder;

const CPUS: usize = 64;
const MEMORY_KIB: u64 = 256 * 1024 * 1024;

/// Mounts the pretended size. Needed before the kubelet starts.
///
/// # Errors
/// When a file cannot be written or a mount is refused.
pub fn pretend_size(layout: &Layout, holder: &Holder) -> Result<()> {
    let data = layout.data("pretended");
    let node = data.join("nodes/node0");
    for (core, directory) in cpu_directories(&online_cpus()?).into_iter().enumerate() {
        let topology = node.join(directory).join("topology");
        // Each a core of its own: one core must not have two threads of one number.
        write(&topology.join("core_id"), &format!("{core}\n"))?;
        write(&topology.join("physical_package_id"), "0\n")?;
    }
    write(&node.join("distance"), "10\n")?;
    write(&node.join("meminfo"), &format!("Node 0 MemTotal: {MEMORY_KIB} kB\n"))?;
    write(&data.join("meminfo"), &with_total(&read(Path::new("/proc/meminfo"))?, MEMORY_KIB))?;

    for (source, target) in [("nodes", "/sys/devices/system/node"), ("meminfo", "/proc/meminfo")] {
        // A kernel without NUMA has no such directory, and the node then its true size.
        if Path::new(target).exists() {
            holder.bind(&data.join(source), target)?;
        }
    }
    Ok(())
}

/// One directory for each pretended CPU. The kubelet counts directories, but takes the ids in their
/// names for the Pods' cpuset, where only CPUs that exist will do: `cpu0`, `cpu00` and `cpu000` are
/// three CPUs, all of them number 0.
fn cpu_directories(online: &[usize]) -> Vec<String> {
    (0..CPUS.max(online.len()))
        .zip(online.iter().cycle())
        .map(|(count, cpu)| format!("cpu{}{cpu}", "0".repeat(count / online.len())))
        .collect()
}

fn online_cpus() -> Result<Vec<usize>> {
    let path = Path::new("/sys/devices/system/cpu/online");
    let text = read(path)?;
    parse_list(text.trim())
        .with_context(|| format!("{} is {text:?}, expected a list like 0-3,8", path.display()))
}

fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

fn with_total(meminfo: &str, kib: u64) -> String {
    meminfo
        .lines()
        .map(|line| match line.starts_with("MemTotal:") {
            true => format!("MemTotal: {kib} kB\n"),
            false => format!("{line}\n"),
        })
        .collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(context)?;
    }
    std::fs::write(path, content).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_total_of_the_memory_is_pretended() {
        let text = with_total("MemTotal: 1 kB\nMemFree: 2 kB\n", 9);
        assert_eq!(text, "MemTotal: 9 kB\nMemFree: 2 kB\n");
    }

    #[test]
    fn every_directory_is_another_name_of_a_cpu_that_exists() {
        let directories = cpu_directories(&[0, 1, 5]);
        assert_eq!(directories[..5], ["cpu0", "cpu1", "cpu5", "cpu00", "cpu01"]);
        let distinct: std::collections::BTreeSet<_> = directories.iter().collect();
        assert_eq!(distinct.len(), CPUS);
    }

    #[test]
    fn the_list_of_online_cpus_may_have_gaps() {
        assert_eq!(parse_list("0-2,8"), Some(vec![0, 1, 2, 8]));
        assert_eq!(parse_list("x"), None);
    }
}
