//! What there is of sandboxes on this machine, to be compared with what there was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::proc;
use crate::up::Up;

pub(crate) const LAUNCHER: &str = "stockade-launcher";
pub(crate) const RELAY: &str = "stockade-relay";
/// Bounds for walks of trees that are a few levels deep.
const DEPTH: usize = 8;

/// The kinds of things that are counted.
pub(crate) const KINDS: [&str; 9] = [
    "mounts",
    "processes",
    "control groups",
    "files in the state directory",
    "descriptors",
    "network namespaces",
    "interfaces",
    "routes",
    "elements of nft sets",
];

/// Things by kind: how many of each name there are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    things: BTreeMap<(&'static str, String), usize>,
}

impl Left {
    /// Looks.
    pub(crate) fn now(up: &Up) -> Self {
        let ours: Vec<(&str, u32)> =
            [("server", Some(up.server())), ("launcher", up.helper(LAUNCHER)), ("relay", up.helper(RELAY))]
                .into_iter()
                .filter_map(|(name, pid)| Some((name, pid?)))
                .collect();
        let mut left = Self::default();
        left.mounts(up, &ours);
        left.processes(up, &ours);
        left.files(up);
        left.descriptors(&ours);
        left.networks(up, &ours);
        for group in groups(&up.machine()) {
            left.add("control groups", without_names(up, &group));
        }
        left
    }

    /// How many of a kind there are.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.things.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum()
    }

    /// What differs, in words.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let keys: BTreeSet<_> = self.things.keys().chain(before.things.keys()).collect();
        let count = |left: &Self, key: &(&'static str, String)| left.things.get(key).copied().unwrap_or(0);
        let differs = keys.into_iter().filter(|key| count(self, key) != count(before, key));
        differs
            .map(|key| {
                format!("{}: {} ({} before, {} now)", key.0, key.1, count(before, key), count(self, key))
            })
            .collect()
    }

    fn add(&mut self, kind: &'static str, name: impl Into<String>) {
        *self.things.entry((kind, name.into())).or_default() += 1;
    }

    /// Those that lie in our directory, and all that processes of ours see which have mounts of their own.
    fn mounts(&mut self, up: &Up, ours: &[(&str, u32)]) {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let state = up.state.to_string_lossy();
        let of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in of("self").lines().filter(|line| line.contains(&*state)) {
            self.add("mounts", without_numbers(line));
        }
        for (name, pid) in ours {
            let pid = pid.to_string();
            if namespace(&pid) != namespace("self") {
                // Other programs come and go among the machine's own mounts, which are seen here too.
                for line in
                    of(&pid).lines().filter(|line| line.contains(&*state) || !line.contains(" master:"))
                {
                    self.add("mounts", format!("{name} sees {}", without_numbers(line)));
                }
            }
        }
    }

    fn processes(&mut self, up: &Up, ours: &[(&str, u32)]) {
        for pid in proc::all().into_iter().filter(|pid| is_ours(up, ours, *pid)) {
            self.add("processes", proc::arguments(pid).join(" "));
        }
    }

    fn files(&mut self, up: &Up) {
        walk(&up.state, DEPTH, &mut |path| {
            self.add("files in the state directory", without_names(up, path));
        });
    }

    fn descriptors(&mut self, ours: &[(&str, u32)]) {
        for (name, pid) in ours {
            for to in proc::descriptors(*pid) {
                let to = to.display().to_string();
                // Sockets, pipes and namespaces are numbered.
                let kind =
                    if to.starts_with('/') { to.as_str() } else { to.split(':').next().unwrap_or_default() };
                self.add("descriptors", format!("{name}: {kind}"));
            }
        }
    }

    /// Ours only: other servers on this machine come and go.
    fn networks(&mut self, up: &Up, ours: &[(&str, u32)]) {
        let own = fs::read_link("/proc/self/ns/net").ok();
        let mut namespaces: BTreeSet<PathBuf> = BTreeSet::new();
        for (_, pid) in ours {
            let held = proc::descriptors(*pid).into_iter();
            namespaces.extend(held.filter(|to| to.to_string_lossy().starts_with("net:")));
        }
        for pid in proc::all().into_iter().filter(|pid| is_ours(up, ours, *pid)) {
            namespaces.extend(fs::read_link(format!("/proc/{pid}/ns/net")));
        }
        for _ in namespaces.iter().filter(|namespace| Some(*namespace) != own.as_ref()) {
            self.add("network namespaces", "one");
        }
        let tag = tag(&up.machine());
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let of_routes = routes.lines().skip(1).filter_map(|line| line.split('\t').next());
        let interfaces = proc::names(Path::new("/sys/class/net"));
        let of_interfaces = interfaces.iter().map(String::as_str);
        let named =
            of_interfaces.map(|name| ("interfaces", name)).chain(of_routes.map(|name| ("routes", name)));
        for (kind, name) in named.filter(|(_, name)| name.get(2..).is_some_and(|rest| rest.starts_with(&tag)))
        {
            // Those of sandboxes are numbered as they come.
            self.add(kind, name.split_once('-').map_or(name, |(prefix, _)| prefix));
        }
        for _ in 0..set_elements(&up.machine()).unwrap_or(0) {
            self.add("elements of nft sets", "one");
        }
    }
}

/// A process of ours, a child of one, or whatever writes into the log of a sandbox.
fn is_ours(up: &Up, ours: &[(&str, u32)], pid: u32) -> bool {
    let parent = proc::parent(pid);
    let log = || {
        fs::read_link(format!("/proc/{pid}/fd/1"))
            .is_ok_and(|log| log.starts_with(up.state.join("sandboxes")))
    };
    ours.iter().any(|(_, of)| *of == pid || Some(*of) == parent) || log()
}

/// What interfaces of a machine have in their names, after two letters: as the embedded backend's `addressing` makes it.
fn tag(machine: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = machine.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..6).map(|at| char::from(ALPHABET[usize::try_from(hash >> (5 * at) & 31).unwrap_or(0)])).collect()
}

/// Whether elements of sets can be counted here.
pub(crate) fn sees_sets() -> bool {
    nft(&["--version"]).is_some()
}

/// The elements of all sets and maps of our table.
fn set_elements(machine: &str) -> Option<usize> {
    let text = nft(&["-j", "list", "ruleset"])?;
    let rules: Value = serde_json::from_slice(&text).ok()?;
    let objects = rules["nftables"].as_array()?.iter();
    let sets = objects.filter_map(|object| object.get("set").or_else(|| object.get("map")));
    let ours = sets.filter(|set| set["table"].as_str().is_some_and(|table| table.contains(machine)));
    Some(ours.map(|set| set["elem"].as_array().map_or(0, Vec::len)).sum())
}

fn nft(arguments: &[&str]) -> Option<Vec<u8>> {
    let output =
        Command::new("nft").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// Sandboxes that are prepared ahead are others after a while, and as many: their names do not count.
fn without_names(up: &Up, path: &Path) -> String {
    let standbys = proc::names(&up.state.join("standby"));
    standbys.iter().fold(path.display().to_string(), |path, name| path.replace(name, "(prepared ahead)"))
}

/// The control groups of this machine of ours, in every tree, with those below them.
pub(crate) fn groups(machine: &str) -> Vec<PathBuf> {
    let name = format!("stockade-{machine}");
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), DEPTH, &mut |path| {
        if path.components().any(|part| part.as_os_str() == name.as_str()) && path.is_dir() {
            found.push(path.to_owned());
        }
    });
    found
}

/// The memory groups that the kernel still holds, with those that were removed and whose memory is still used.
pub(crate) fn memory_groups() -> Option<u64> {
    let text = fs::read_to_string("/proc/cgroups").ok()?;
    let line = text.lines().find(|line| line.starts_with("memory\t"))?;
    line.split('\t').nth(2)?.parse().ok()
}

fn walk(directory: &Path, depth: usize, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        see(&entry.path());
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), depth - 1, see);
        }
    }
}

/// A line of mountinfo without the numbers that only count up: its own, its parent's, its device's.
fn without_numbers(line: &str) -> String {
    line.split(' ').skip(3).collect::<Vec<_>>().join(" ")
}
