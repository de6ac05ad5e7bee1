//! What the kernel has ended because the sandbox's memory was used up, as its control group counts it.
//!
//! A process that is ended so dies of SIGKILL, without a word of its own. Version 2 of control groups counts in
//! `memory.events`, for a group and those below it; version 1 in `memory.oom_control`, for each group alone. Both are
//! shown in containers and in embedded sandboxes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where control groups are shown.
const GROUPS: &str = "/sys/fs/cgroup";
/// The group of commands, where they have one of their own.
const COMMANDS: &str = "commands";
/// More than what such a file has.
const FILE: usize = 1024;
/// What a shell says of a process that SIGKILL has ended.
const KILLED: i32 = 137;
/// Version 1 says "no limit" by a number that no machine has.
const NO_LIMIT: u64 = 1 << 60;

/// The counters of the agent's own groups.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    counters: Vec<File>,
    limit: Option<PathBuf>,
}

impl Kills {
    /// Looks where they are. Where none are shown, nothing is ever counted.
    pub(crate) fn find() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::find_in(Path::new(GROUPS), &own)
    }

    fn find_in(groups: &Path, own: &str) -> Self {
        // In a container, paths are those inside or those outside of it; its own group is at the top then.
        let group = |tree: &Path, path: &str, file: &str| {
            let below = tree.join(path.trim_start_matches('/'));
            let inside = !path.split('/').any(|part| part == "..");
            [below, tree.to_owned()]
                .into_iter()
                .find(|group| (inside || group == tree) && group.join(file).is_file())
        };
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (tree, counter, limit) = if controllers.is_empty() {
                (groups.to_owned(), "memory.events", "memory.max")
            } else if controllers.split(',').any(|name| name == "memory") {
                (groups.join("memory"), "memory.oom_control", "memory.limit_in_bytes")
            } else {
                continue;
            };
            let Some(group) = group(&tree, path, counter) else { continue };
            // Version 2 counts what is below as well.
            let below = (!controllers.is_empty()).then(|| group.join(COMMANDS));
            let all = std::iter::once(&group).chain(&below);
            let counters: Vec<File> = all.filter_map(|group| File::open(group.join(counter)).ok()).collect();
            if !counters.is_empty() {
                return Self { counters, limit: Some(group.join(limit)) };
            }
        }
        Self::default()
    }

    /// How many there were so far. These are files without a disk: a read is a call that copies a few numbers.
    pub(crate) fn count(&self) -> u64 {
        self.counters.iter().filter_map(count_in).sum()
    }

    /// Notes how many there were before something is run.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        Watch { before: self.count(), kills: Arc::clone(self) }
    }

    fn limit(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.limit.as_ref()?).ok()?;
        text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
    }
}

/// What follows `oom_kill ` at the beginning of a line.
fn count_in(file: &File) -> Option<u64> {
    let mut buffer = [0; FILE];
    let length = file.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Whether something was ended for memory since.
#[derive(Debug)]
pub(crate) struct Watch {
    kills: Arc<Kills>,
    before: u64,
}

impl Watch {
    /// What to say of something that has ended, by its code if it has one: that it was killed for memory, or that
    /// another process was meanwhile, a member of its pipeline or one of another command.
    pub(crate) fn verdict(&self, code: Option<i32>) -> Option<Verdict> {
        if self.kills.count() <= self.before {
            return None;
        }
        let reached = match self.kills.limit() {
            Some(limit) => format!("the sandbox's memory limit of {} was reached", quantity(limit)),
            None => "the memory was used up".to_owned(),
        };
        let it = code.is_none_or(|code| code == KILLED);
        let said = if it { "killed" } else { "a process was killed while this ran" };
        Some(Verdict { it, text: format!("{said}: {reached}") })
    }
}

/// What is said of something that ended while memory was short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// It was ended itself.
    pub(crate) it: bool,
    pub(crate) text: String,
}

/// As limits are written: in the largest unit that leaves a whole number.
fn quantity(bytes: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Groups(tempfile::TempDir);

    impl Groups {
        fn new(files: &[(&str, &str)]) -> Self {
            let groups = Self(tempfile::tempdir().unwrap());
            for (path, content) in files {
                groups.write(path, content);
            }
            groups
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn kills(&self, own: &str) -> Arc<Kills> {
            Arc::new(Kills::find_in(self.0.path(), own))
        }
    }

    const V1: &str = "9:pids:/\n4:memory:/\n1:cpu:/\n0::/\n";

    #[test]
    fn version_2_counts_for_the_group_and_what_is_below() {
        let groups = Groups::new(&[
            ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            ("memory.max", "268435456\n"),
        ]);
        let kills = groups.kills("0::/\n");
        assert_eq!(kills.count(), 2);
        let watch = kills.watch();
        assert_eq!(watch.verdict(Some(137)), None, "somebody's kill -9");
        groups.write("memory.events", "low 0\noom 3\noom_kill 3\n");
        let said = watch.verdict(Some(137)).unwrap();
        assert_eq!(
            (said.it, said.text.as_str()),
            (true, "killed: the sandbox's memory limit of 256Mi was reached")
        );
        assert!(watch.verdict(None).unwrap().it, "bash itself was ended");
        let other = watch.verdict(Some(0)).unwrap();
        let expect = "a process was killed while this ran: the sandbox's memory limit of 256Mi was reached";
        assert_eq!((other.it, other.text.as_str()), (false, expect));
    }

    #[test]
    fn version_1_counts_in_each_group() {
        let none = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";
        let groups = Groups::new(&[
            ("memory/memory.oom_control", none),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/commands/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
        ]);
        let kills = groups.kills(V1);
        let watch = kills.watch();
        assert_eq!(kills.count(), 4);
        groups.write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        assert_eq!(watch.verdict(Some(137)).unwrap().text, "killed: the memory was used up");
    }

    #[test]
    fn the_own_group_is_found_below_or_at_the_top() {
        for (own, place) in [
            ("0::/user.slice/agent.service\n", "user.slice/agent.service/memory.events"),
            ("0::/kubepods/pod1/abc\n", "memory.events"),
            ("0::/../commands\n", "memory.events"),
            ("11:memory:/docker/abc\n0::/docker/abc\n", "memory/memory.oom_control"),
        ] {
            let groups = Groups::new(&[(place, "oom_kill 7\n")]);
            assert_eq!(groups.kills(own).count(), 7, "{own}");
        }
        for (own, files) in
            [("", vec![]), ("0::/\n", vec![("memory.events", "low 0\n")]), ("garbage", vec![])]
        {
            assert_eq!(Groups::new(&files).kills(own).count(), 0, "{own}");
        }
    }

    #[test]
    fn limits_are_said_as_they_are_written() {
        for (bytes, expect) in
            [(256 << 20, "256Mi"), (2 << 30, "2Gi"), (1536 << 20, "1536Mi"), (4096, "4Ki"), (7, "7 bytes")]
        {
            assert_eq!(quantity(bytes), expect);
        }
    }
}
