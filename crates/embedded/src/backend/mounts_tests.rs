use std::fs;
use std::os::unix::fs::symlink;

use stockade_core::layout::LarkSupport;
use stockade_core::mount::RequestedMount;
use stockade_core::{ContractVersion, SandboxId, SandboxSpec};

use super::*;

fn mk_storage(base: &Path) -> StorageLayout {
    let base = HostPath::new(base.to_str().unwrap()).unwrap();
    StorageLayout {
        extra_mount_base: Some(base.clone()),
        base,
        skills: Skills::Views,
        user_data: UserData::Base,
        contract: ContractVersion::V2,
    }
}

fn mk_spec(extra: &[(&str, &str, bool)]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
    spec.extra_mounts = extra
        .iter()
        .map(|(host, container, read_only)| RequestedMount {
            host_path: (*host).into(),
            container_path: (*container).into(),
            read_only: *read_only,
        })
        .collect();
    spec
}

fn mk_binds(storage: &StorageLayout, spec: &SandboxSpec, views: MissingViews) -> Vec<Bind> {
    let support = LarkSupport { runtime: false, broker: false };
    binds(&storage.resolve(spec, support).unwrap(), storage, views)
}

fn lines(binds: &[Bind]) -> Vec<String> {
    let line = |bind: &Bind| {
        let mode = if bind.read_only { "ro" } else { "rw" };
        let (base, below) = (bind.base.display(), bind.below.display());
        format!("{} {base} + {below} {mode} {:?}", bind.target.display(), bind.missing)
    };
    binds.iter().map(line).collect()
}

#[test]
fn each_directory_is_found_from_the_one_the_operator_named() {
    let storage = mk_storage(Path::new("/srv/df"));
    let conversions = "/srv/df/users/default/threads/s1/user-data/.upload-conversions";
    let spec = mk_spec(&[
        (conversions, "/mnt/user-data/.upload-conversions", true),
        ("/srv/df/acp", "/mnt/acp-workspace", false),
        ("/srv/df/int", "/mnt/skills/integrations", true),
    ]);
    assert_eq!(
        lines(&mk_binds(&storage, &spec, MissingViews::Empty)),
        [
            "/mnt/acp-workspace /srv/df + acp rw Create",
            "/mnt/skills/custom /srv/df + users/default/skills_view/custom ro Empty",
            "/mnt/skills/integrations /srv/df + int ro Refuse",
            "/mnt/skills/legacy /srv/df + users/default/skills_view/legacy ro Empty",
            "/mnt/skills/public /srv/df + skills_view/public ro Empty",
            "/mnt/user-data /srv/df + users/default/threads/s1/user-data rw Create",
            "/mnt/user-data/.upload-conversions /srv/df + users/default/threads/s1/user-data/.upload-conversions ro Create",
        ]
    );
}

#[test]
fn the_first_generation_s_directories_are_named_each() {
    let mut storage = mk_storage(Path::new("/srv/df"));
    storage.skills = Skills::Directory(HostPath::new("/opt/skills").unwrap());
    storage.user_data = UserData::Threads(HostPath::new("/data/threads").unwrap());
    assert_eq!(
        lines(&mk_binds(&storage, &mk_spec(&[]), MissingViews::Create)),
        ["/mnt/skills /opt/skills +  ro Refuse", "/mnt/user-data /data/threads + s1/user-data rw Create"]
    );
}

#[test]
fn a_directory_that_must_be_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let storage = mk_storage(directory.path());
    let missing = directory.path().join("int");
    let spec = mk_spec(&[(missing.to_str().unwrap(), "/mnt/skills/integrations", true)]);
    let binds = mk_binds(&storage, &spec, MissingViews::Empty);
    let error = look(&binds).unwrap_err();
    assert_eq!(error, MountError::SourceMissing { path: missing.display().to_string() });
    fs::create_dir(&missing).unwrap();
    assert_eq!(look(&binds).unwrap().len(), 3, "the three views");
}

#[test]
fn a_link_on_the_way_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let storage = mk_storage(directory.path());
    let data = directory.path().join("users/default/threads/s1/user-data");
    fs::create_dir_all(&data).unwrap();
    symlink("/etc", data.join(".upload-conversions")).unwrap();
    let source = data.join(".upload-conversions");
    let spec = mk_spec(&[(source.to_str().unwrap(), "/mnt/user-data/.upload-conversions", true)]);
    let error = look(&mk_binds(&storage, &spec, MissingViews::Empty)).unwrap_err();
    assert!(matches!(&error, MountError::SourceIsLink { path } if path.ends_with("conversions")), "{error}");
}

#[test]
fn what_cannot_be_a_directory_is_the_callers_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().to_str().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let storage = mk_storage(directory.path());
    let refused = |host_path: &str, read_only| {
        let spec = mk_spec(&[(host_path, "/mnt/acp-workspace", read_only)]);
        look(&mk_binds(&storage, &spec, MissingViews::Create)).unwrap_err()
    };
    for read_only in [false, true] {
        for path in [format!("{base}/file"), format!("{base}/file/below")] {
            assert_eq!(refused(&path, read_only), MountError::SourceNotDirectory { path: path.clone() });
        }
    }
    let path = format!("{base}/{}", "x".repeat(300));
    assert_eq!(refused(&path, false), MountError::SourceNameTooLong { path: path.clone() });
}
