//! Whether the end of everything on a state directory will come to its end. Looked at before anything is ended: half an
//! end leaves sandboxes without a server.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use stockade_core::SandboxId;

use super::{StateError, check_private, read_in};

/// What may lie in a state directory. Whatever else does is somebody else's.
const OURS: [&str; 13] = [
    "lock",
    "machine.json",
    "sandboxes",
    "standby",
    "trash",
    "stage",
    "unreadable",
    "api-key",
    "server.json",
    "data",
    "relay.sock",
    "relay.lock",
    "relay.start.lock",
];
/// And whatever begins so: logs, and drafts of files that are replaced.
const OURS_BEGIN: [&str; 4] = ["relay.log", "machine.", ".api-key.", ".server.json."];
/// How many names of what is not ours a message has.
const NAMED: usize = 3;

/// Whether everything that runs on a state directory can be ended, and with `purge` the directory be removed.
/// `server` is the process that is known to serve there, and may have it in use.
///
/// # Errors
/// The first thing that is in the way. Nothing is changed.
pub(crate) fn check_end(root: &Path, purge: bool, server: Option<i32>) -> Result<(), StateError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { doing, path, source }
    };
    let found = fs::metadata(root).map_err(failed("look at", root))?;
    if !found.is_dir() {
        return Err(failed("use as a state directory", root)(io::ErrorKind::NotADirectory.into()));
    }
    let root = &fs::canonicalize(root).map_err(failed("look at", root))?;
    check_private(root)?;
    check_unused(root, server)?;
    check_records(root)?;
    if purge {
        check_content(root)?;
        check_mounts(root)?;
        check_above(root)?;
    }
    Ok(())
}

/// Whether nobody but the server that is known has it.
fn check_unused(root: &Path, server: Option<i32>) -> Result<(), StateError> {
    let path = root.join("lock");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StateError::Io { doing: "open", path, source }),
    };
    // Given back at the end of this function: who takes it for good comes later.
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) if server.is_none() => {
            let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            Err(StateError::InUse { path: root.to_owned(), holder })
        }
        Ok(()) | Err(Errno::WOULDBLOCK) => Ok(()),
        Err(error) => Err(StateError::Io { doing: "lock", path, source: error.into() }),
    }
}

/// Whether every record is one that this version understands: a newer one's sandbox could not be ended.
fn check_records(root: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(root.join("sandboxes")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| SandboxId::new(name).ok()) else { continue };
        match read_in(root, &id) {
            // What nobody can read is put aside.
            Ok(_) | Err(StateError::Record { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether all that lies there is ours.
fn check_content(root: &Path) -> Result<(), StateError> {
    let failed = |source| StateError::Io { doing: "read", path: root.to_owned(), source };
    let mut foreign = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !is_ours(&name) {
            foreign.push(name.to_string_lossy().into_owned());
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.sort();
    let more = foreign.len().saturating_sub(NAMED);
    foreign.truncate(NAMED);
    Err(StateError::Foreign { path: root.to_owned(), names: foreign, more })
}

fn is_ours(name: &OsStr) -> bool {
    OURS.iter().any(|known| name == *known)
        || OURS_BEGIN.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()))
}

/// Whether nothing is mounted on it or below: what is mounted cannot be removed, and may be anybody's.
fn check_mounts(root: &Path) -> Result<(), StateError> {
    let path = Path::new("/proc/self/mountinfo");
    let table =
        fs::read(path).map_err(|source| StateError::Io { doing: "read", path: path.to_owned(), source })?;
    // Ours alone, in the launcher's own view; an earlier launcher's may be left in that of an ordinary user.
    let stage = root.join("stage");
    let mounted = mount_points(&table).find(|point| point.starts_with(root) && !point.starts_with(&stage));
    mounted.map_or(Ok(()), |point| Err(StateError::Mounted { path: root.to_owned(), point }))
}

/// The mount points of a table of mounts, whose fifth field they are (proc_pid_mountinfo(5)).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let field = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescaped);
    table.split(|byte| *byte == b'\n').filter_map(field)
}

/// Blanks and their like are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Whether an entry of the directory above may be removed.
fn check_above(root: &Path) -> Result<(), StateError> {
    let Some(above) = root.parent() else { return Ok(()) };
    access(above, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| StateError::Io {
        doing: "remove the state directory from",
        path: above.to_owned(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state::StateDir;
    use crate::state::tests::mk_record;

    fn mk_state() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("a state");
        drop(StateDir::open(&root).unwrap());
        (above, root)
    }

    fn refused(root: &Path, purge: bool) -> String {
        check_end(root, purge, None).unwrap_err().to_string()
    }

    #[test]
    fn a_directory_of_ours_can_end_and_go() {
        let (_above, root) = mk_state();
        for name in ["api-key", "server.json", ".server.json.7", "relay.log.old"] {
            fs::write(root.join(name), "").unwrap();
        }
        fs::create_dir(root.join("data")).unwrap();
        check_end(&root, true, None).unwrap();
        assert!(root.exists());
    }

    #[test]
    fn what_others_can_enter_is_refused_before_anything_ends() {
        let (_above, root) = mk_state();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(refused(&root, true).contains("chmod 700"));
        assert!(refused(&root, false).contains("chmod 700"));
    }

    #[test]
    fn what_is_somebody_elses_is_not_removed() {
        let (_above, root) = mk_state();
        for name in ["e", "d", "c", "b"] {
            fs::write(root.join(name), "").unwrap();
        }
        let said = refused(&root, true);
        assert!(said.contains("b, c, d and 1 more"), "{said}");
        check_end(&root, false, None).unwrap();
    }

    #[test]
    fn a_server_that_is_not_known_keeps_it() {
        let (_above, root) = mk_state();
        let open = StateDir::open(&root).unwrap();
        assert!(refused(&root, false).contains(&format!("process {}", std::process::id())));
        check_end(&root, false, Some(7)).unwrap();
        drop(open);
        check_end(&root, false, None).unwrap();
    }

    #[test]
    fn a_record_of_a_newer_version_stops_the_end_before_it_begins() {
        let (_above, root) = mk_state();
        let state = StateDir::open(&root).unwrap();
        state.write(&mk_record("s1")).unwrap();
        drop(state);
        check_end(&root, true, None).unwrap();
        let path = root.join("sandboxes/s1/record.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["version"] = 99.into();
        fs::write(&path, record.to_string()).unwrap();
        assert!(refused(&root, false).contains("has format 99"));
    }

    #[test]
    fn no_directory_is_no_state_directory() {
        let (above, _root) = mk_state();
        let file = above.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&file, true).contains("use as a state directory"));
    }

    #[test]
    fn mount_points_are_read_as_they_are() {
        let table = b"36 35 98:0 /mnt1 /a\\040state/data rw,noatime master:1 - ext3 /dev/root rw\n\n37 35 0:5 / /proc rw - proc proc rw\n";
        let all: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(all, [PathBuf::from("/a state/data"), PathBuf::from("/proc")]);
        check_mounts(Path::new("/nowhere")).unwrap();
        assert!(check_mounts(Path::new("/proc")).unwrap_err().to_string().contains("/proc"));
    }
}
