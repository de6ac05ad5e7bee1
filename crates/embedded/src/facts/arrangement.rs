//! What the settings make of this machine: where files lie, and what many sandboxes together may use up.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use stockade_core::layout::UserData;

use super::findings::Finding;
use crate::confine::rlimits::MOST_OPEN_FILES;
use crate::launch::TERMINALS;
use crate::settings::EmbeddedSettings;

/// What the findings follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Arrangement {
    /// Directories that sandboxes write to and other users can enter.
    open: Vec<PathBuf>,
    /// A directory that sandboxes write to without limit, on the file system of the state directory.
    shared: Option<PathBuf>,
    /// Open files on the whole machine, and those one sandbox may have.
    files: Option<(u64, u64)>,
    /// Terminals of all sandboxes of the machine, and those they may have.
    terminals: Option<(u64, u64)>,
    /// Descriptors this process may have, and those it needs for as many sandboxes as there may be.
    descriptors: Option<(u64, u64)>,
}

/// What the settings make of this machine. Only what is not as it should be is told.
#[must_use]
pub fn findings_about(settings: &EmbeddedSettings) -> Vec<Finding> {
    Arrangement::look(settings).findings()
}

/// Directories that sandboxes write to and other users of this machine can enter.
pub(crate) fn open_to_others(settings: &EmbeddedSettings) -> Vec<PathBuf> {
    written(settings).into_iter().filter(|path| others_enter(path)).collect()
}

fn written(settings: &EmbeddedSettings) -> Vec<PathBuf> {
    let mut written = vec![PathBuf::from(settings.storage.base.as_str())];
    if let UserData::Threads(path) = &settings.storage.user_data {
        written.push(PathBuf::from(path.as_str()));
    }
    written
}

impl Arrangement {
    fn look(settings: &EmbeddedSettings) -> Self {
        let device = |path: &Path| nearest(path).map(|found| found.dev());
        // With records alone, too: without room for them none is made or paused.
        let state = device(&settings.state_dir);
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let terminals = number("/proc/sys/kernel/pty/max")
            .map(|most| most.saturating_sub(number("/proc/sys/kernel/pty/reserve").unwrap_or(0)));
        let processes = u64::from(settings.limits.pids) * MOST_OPEN_FILES;
        Self {
            shared: written(settings).into_iter().find(|path| state.is_some() && device(path) == state),
            open: open_to_others(settings),
            files: number("/proc/sys/fs/file-max")
                .map(|most| (most, processes.min(settings.limits.memory.0 / BYTES_OF_AN_OPEN_FILE))),
            terminals: terminals.map(|most| (most, u64::from(settings.max_sandboxes) * u64::from(TERMINALS))),
            descriptors: getrlimit(Resource::Nofile).maximum.map(|most| {
                (most, DESCRIPTORS + DESCRIPTORS_OF_A_SANDBOX * u64::from(settings.max_sandboxes))
            }),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let open = self.open.iter().map(|path| {
            Finding::less(
                "threads' files",
                format!(
                    "other users of this machine can enter {}: what sandboxes write there belongs to its owner, \
                     and may be left for everybody to read and execute",
                    path.display()
                ),
                "take it from others (chmod o-rwx on the directory, or on one above it); whoever has to read it \
                 gets it through its group",
            )
        });
        let shared = self.shared.as_ref().map(|path| {
            Finding::less(
                "disk",
                format!(
                    "{} and the state directory are on one file system: sandboxes may write below /mnt without \
                     limit, and when it is full none can be made or paused",
                    path.display()
                ),
                "put one of them on a file system of its own, or give the directory a quota",
            )
        });
        let more = |(most, used): &(u64, u64)| used > most;
        let files = self.files.filter(|numbers| more(numbers)).map(|(most, one)| {
            Finding::less(
                "open files",
                format!("one sandbox may have {one} at once, and all users but root share {most}"),
                "raise fs.file-max (sysctl), or lower SANDBOX_PIDS_LIMIT or SANDBOX_MEMORY_LIMIT",
            )
        });
        let terminals = self.terminals.filter(more).map(|(most, all)| {
            Finding::less(
                "terminals",
                format!(
                    "{all} may be asked for by as many sandboxes as SANDBOX_MAX allows, {TERMINALS} by each, and \
                     all of this machine's share {most}; when they are used up, shells have none"
                ),
                "raise kernel.pty.max (sysctl)",
            )
        });
        let descriptors = self.descriptors.filter(more).map(|(most, all)| {
            Finding::less(
                "descriptors",
                format!(
                    "the server may have {most} at once, and as many sandboxes as SANDBOX_MAX allows need {all}; when \
                     they are used up, none can be made"
                ),
                "raise the hard limit (LimitNOFILE= of a service, ulimit -Hn of a shell), or lower SANDBOX_MAX",
            )
        });
        open.chain(shared).chain(files).chain(terminals).chain(descriptors).collect()
    }
}

/// For the server itself, its callers, and what is prepared ahead.
const DESCRIPTORS: u64 = 512;
/// Its process, its ports, its groups.
const DESCRIPTORS_OF_A_SANDBOX: u64 = 4;
/// What the kernel counts as a group's memory for each open file, at least.
const BYTES_OF_AN_OPEN_FILE: u64 = 256;

/// The directory, or the one it would be made in.
fn nearest(path: &Path) -> Option<std::fs::Metadata> {
    path.ancestors().find_map(|path| std::fs::metadata(path).ok())
}

/// Whether users who are neither its owner nor in its group can enter the directory, by its path. Of a directory that
/// is not there nobody can say.
fn others_enter(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    path.ancestors().all(|path| std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::findings::Level;
    use super::*;

    #[test]
    fn a_directory_is_open_when_all_above_it_are() {
        let top = tempfile::tempdir_in("/tmp").unwrap();
        let inner = top.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(top.path(), 0o755);
        set(&top.path().join("a"), 0o755);
        for (mode, expect) in [(0o755, true), (0o711, true), (0o750, false), (0o744, false)] {
            set(&inner, mode);
            assert_eq!(others_enter(&inner), expect, "{mode:o}");
        }
        set(&inner, 0o777);
        set(&top.path().join("a"), 0o770);
        assert!(!others_enter(&inner));
        assert!(!others_enter(&top.path().join("none")));
    }

    #[test]
    fn only_what_could_be_better_is_told_with_a_remedy() {
        assert_eq!(Arrangement::default().findings(), []);
        let enough =
            Arrangement { files: Some((100, 100)), terminals: Some((100, 100)), ..Arrangement::default() };
        assert_eq!(enough.findings(), []);
        let all = Arrangement {
            open: vec!["/srv/a".into(), "/srv/b".into()],
            shared: Some("/srv/a".into()),
            files: Some((100, 101)),
            terminals: Some((100, 101)),
            descriptors: Some((100, 101)),
        };
        let findings = all.findings();
        assert_eq!(findings.len(), 6);
        assert!(findings.iter().all(|finding| finding.level == Level::Less && finding.remedy.is_some()));
        assert!(findings[1].text.contains("/srv/b"));
    }
}
