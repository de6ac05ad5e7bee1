use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use stockade_core::{ContractVersion, Identity, SandboxSpec};

use super::record::{Life, Phase, StoredLimits};
use super::*;
use crate::launch::LaunchSpec;
use crate::launch::spec::{RootFs, UserMap, WritableLayer};
use crate::network::ResolvedPolicy;

pub(crate) fn mk_record(id: &str) -> Record {
    let spec = SandboxSpec::new(SandboxId::new(id).unwrap());
    Record {
        id: spec.id.clone(),
        incarnation: "i-1".into(),
        created_at: "2026-11-01T02:03:04Z".parse().unwrap(),
        identity: Identity { user: spec.user.clone(), thread: spec.thread },
        contract: ContractVersion::V2,
        signature: "v1:0".into(),
        port: 20_000,
        slot: 0,
        launch: LaunchSpec {
            id: id.into(),
            users: UserMap::Single,
            root: RootFs::HostSystem,
            writable: WritableLayer::Tmpfs { bytes: 1 << 20 },
            binds: vec![],
            environment: BTreeMap::from([("TOKEN".into(), "s3cret".into())]),
            name_server: None,
            known_host: None,
            agent_port: 8080,
            processes: None,
            grace: Duration::from_secs(5),
            only_reads: None,
            shared_memory: 64 << 20,
            groups: vec![],
        },
        limits: StoredLimits { millicores: 1000, memory: 1 << 30, storage: 1 << 30, pids: 512 },
        network: ResolvedPolicy::Isolated,
        notes: vec![],
        life: Life {
            phase: Phase::Making,
            process: None,
            paused: false,
            restarts: vec![],
            last_exit: None,
            failure: None,
        },
    }
}

fn mk_state() -> (tempfile::TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(&directory.path().join("state")).unwrap();
    (directory, state)
}

#[test]
fn what_was_written_is_read() {
    let (_directory, state) = mk_state();
    let record = mk_record("s1");
    state.write(&record).unwrap();
    let path = state.sandbox(&record.id).join(RECORD);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let stored = state.read().unwrap();
    assert!(matches!(&stored[..], [Stored::Sandbox(read)] if **read == record), "{stored:?}");
}

#[test]
fn one_server_at_a_time_has_it() {
    let (_directory, state) = mk_state();
    let root = state.root().to_owned();
    let error = StateDir::open(&root).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let id = state.machine().id().to_owned();
    drop(state);
    assert_eq!(StateDir::open(&root).unwrap().machine().id(), id, "the id stays");
}

#[test]
fn a_directory_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let error = StateDir::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("755"), "{error}");
}

#[test]
fn a_newer_format_stops_the_start_and_nothing_is_lost() {
    let (_directory, state) = mk_state();
    let record = mk_record("s1");
    state.write(&record).unwrap();
    let path = state.sandbox(&record.id).join(RECORD);
    let text = fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":2");
    fs::write(&path, &text).unwrap();
    let error = state.read().unwrap_err();
    assert!(matches!(error, StateError::Version { found: 2, known: 1, .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_record_nobody_can_read_is_put_aside() {
    let (_directory, state) = mk_state();
    for (id, text) in [("torn", ""), ("other", "{\"version\":1}"), ("good", "")] {
        let mut record = mk_record(id);
        record.port = 1;
        state.write(&record).unwrap();
        if id != "good" {
            fs::write(state.sandbox(&record.id).join(RECORD), text).unwrap();
            fs::create_dir(state.files(&record.id)).unwrap();
        }
    }
    let stored = state.read().unwrap();
    assert!(matches!(&stored[..], [Stored::Sandbox(read)] if read.id.as_str() == "good"), "{stored:?}");
    let kept: Vec<_> = fs::read_dir(state.root().join("unreadable")).unwrap().map(Result::unwrap).collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|entry| entry.path().join("files").is_dir()));
}

#[test]
fn the_record_of_another_sandbox_is_no_record() {
    let (_directory, state) = mk_state();
    state.write(&mk_record("s1")).unwrap();
    fs::rename(state.sandbox(&mk_record("s1").id), state.sandbox(&mk_record("s2").id)).unwrap();
    assert!(state.read().unwrap().is_empty());
}

/// A file system with room for nothing more, in a mount namespace of the test's own.
#[allow(unsafe_code)]
fn on_a_full_disk(test: impl FnOnce(&Path) + Send) {
    if !crate::facts::MachineFacts::probe().privileged {
        return;
    }
    std::thread::scope(|scope| {
        let alone = || {
            // SAFETY: only this thread leaves the mounts it shares, and it ends here.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) }, 0);
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", directory.path(), "tmpfs", flags, Some(c"size=1m,mode=0700"))
                .unwrap();
            test(directory.path());
            rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        };
        scope.spawn(alone).join().unwrap();
    });
}

#[test]
fn a_full_disk_keeps_nobody_from_deleting_or_starting() {
    on_a_full_disk(|root| {
        let state = StateDir::open(root).unwrap();
        let record = mk_record("s1");
        state.write(&record).unwrap();
        let mut filler = fs::File::create(root.join("filler")).unwrap();
        let full = (0..).find_map(|_| io::Write::write_all(&mut filler, &[1; 4096]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(state.write(&mk_record("s2")).is_err(), "the disk is full");
        state.mark_deleting(&record.id).unwrap();
        drop(state);
        let state = StateDir::open(root).unwrap();
        let stored = state.read().unwrap();
        let is_deleting =
            |stored: &Stored| matches!(stored, Stored::Sandbox(read) if read.life.phase == Phase::Deleting);
        assert!(stored.iter().any(is_deleting), "{stored:?}");
        state.discard(&record.id).unwrap();
        trash::empty(&state.trash()).unwrap();
    });
}

#[test]
fn what_is_on_its_way_out_stays_so() {
    let (_directory, state) = mk_state();
    let record = mk_record("s1");
    state.write(&record).unwrap();
    state.mark_deleting(&record.id).unwrap();
    state.mark_deleting(&record.id).unwrap();
    assert_eq!(state.read_one(&record.id).unwrap().unwrap().life.phase, Phase::Deleting);
    state.mark_deleting(&mk_record("s2").id).unwrap();
}

#[test]
fn a_directory_without_record_is_half_a_sandbox() {
    let (_directory, state) = mk_state();
    fs::create_dir(state.root().join("sandboxes/s1")).unwrap();
    assert!(matches!(&state.read().unwrap()[..], [Stored::Half(id)] if id.as_str() == "s1"));
}

#[test]
fn trash_goes_whatever_is_in_it_and_nothing_outside() {
    let (directory, state) = mk_state();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let record = mk_record("s1");
    state.write(&record).unwrap();
    let files = state.files(&record.id);
    fs::create_dir(&files).unwrap();
    symlink(&outside, files.join("link")).unwrap();
    symlink("/", files.join("root")).unwrap();
    fs::create_dir(files.join("shut")).unwrap();
    fs::write(files.join("shut/file"), "x").unwrap();
    fs::set_permissions(files.join("shut"), PermissionsExt::from_mode(0o000)).unwrap();
    mk_deep(&files, 3000);
    state.discard(&record.id).unwrap();
    assert!(state.read().unwrap().is_empty());
    trash::empty(&state.trash()).unwrap();
    assert_eq!(fs::read_dir(state.trash()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "x");
}

/// A chain of directories that is deeper than any path may be long.
pub(crate) fn mk_deep(at: &Path, levels: usize) -> std::os::fd::OwnedFd {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut inner = rustix::fs::open(at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&inner, "deep", Mode::RWXU).unwrap();
        inner = openat(&inner, "deep", flags, Mode::empty()).unwrap();
    }
    inner
}

#[test]
fn a_secret_is_not_shown() {
    assert!(!format!("{:?}", mk_record("s1")).contains("s3cret"));
}
