//! Directories of the machine inside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use stockade_embedded::launch::spec::{Bind, Missing};
use stockade_embedded::launch::{LaunchError, LaunchSpec};

use crate::Test;
use crate::world::{Kind, World};

pub(crate) const TESTS: &[Test] = &[
    (
        "files_in_a_mount_belong_to_the_owner_of_its_directory",
        files_in_a_mount_belong_to_the_owner_of_its_directory,
    ),
    ("a_read_only_mount_is_read_only_for_good", a_read_only_mount_is_read_only_for_good),
    ("what_is_missing_is_made_refused_or_empty", what_is_missing_is_made_refused_or_empty),
    ("a_symbolic_link_planted_below_a_base_is_refused", a_symbolic_link_planted_below_a_base_is_refused),
    ("a_symbolic_link_swapped_in_shows_nothing_else", a_symbolic_link_swapped_in_shows_nothing_else),
    ("a_planted_link_at_a_target_leads_nowhere", a_planted_link_at_a_target_leads_nowhere),
    ("mounts_below_a_mount_are_shown_in_their_places", mounts_below_a_mount_are_shown_in_their_places),
    ("a_way_up_in_a_path_is_refused", a_way_up_in_a_path_is_refused),
];

pub(crate) fn bind(base: &Path, below: &str, target: &str, read_only: bool, missing: Missing) -> Bind {
    Bind { base: base.to_owned(), below: below.into(), target: target.into(), read_only, missing }
}

/// The mounts a DeerFlow thread has, in their number and kind.
pub(crate) fn like_deerflow(world: &World) -> Vec<Bind> {
    let base = world.path("deerflow");
    let skills = base.join("skills");
    for part in ["public", "custom"] {
        fs::create_dir_all(skills.join(part)).unwrap();
    }
    fs::create_dir_all(base.join("t/user-data")).unwrap();
    let writable =
        |name: &str| bind(&base, &format!("t/{name}"), &format!("/mnt/{name}"), false, Missing::Create);
    let mut binds = vec![writable("user-data")];
    binds.extend(["workspace", "uploads", "outputs"].map(|name| writable(&format!("user-data/{name}"))));
    binds.push(bind(&base, "t/acp-workspace", "/mnt/acp-workspace", true, Missing::Create));
    binds.extend(
        ["public", "custom"]
            .map(|name| bind(&skills, name, &format!("/mnt/skills/{name}"), true, Missing::Refuse)),
    );
    binds
}

fn with(world: &World, binds: Vec<Bind>) -> LaunchSpec {
    LaunchSpec { binds, ..world.spec("mounts") }
}

/// The failure of a launch, as text; with it nothing may be left.
fn failure(world: &World, spec: &LaunchSpec) -> String {
    match world.runtime.block_on(world.launcher().launch(spec, world.fds(&spec.id))) {
        Err(LaunchError::Step(failure)) => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

fn files_in_a_mount_belong_to_the_owner_of_its_directory(world: &World) {
    let owners: &[u32] = if world.kind == Kind::Root { &[0, 1000, 33, 70_000] } else { &[0] };
    for owner in owners {
        let base = world.directory("owned");
        fs::write(base.join("old"), "old").unwrap();
        world.give(&base.join("old"), *owner);
        fs::set_permissions(base.join("old"), fs::Permissions::from_mode(0o600)).unwrap();
        world.give(&base, *owner);
        let spec = with(world, vec![bind(&base, "", "/mnt/user-data", false, Missing::Refuse)]);
        let sandbox = world.launch(&spec);
        assert_eq!(sandbox.said("stat -c %u:%g /mnt/user-data /mnt/user-data/old"), "1000:1000\n1000:1000");
        sandbox.said("cd /mnt/user-data && echo new > new && mkdir d && echo more >> old && ln -s /etc l");
        for name in ["new", "d", "old", "l"] {
            let found = fs::symlink_metadata(base.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (*owner, *owner), "{name}");
        }
        assert_eq!(fs::read_to_string(base.join("old")).unwrap(), "oldmore\n");
    }
}

fn a_read_only_mount_is_read_only_for_good(world: &World) {
    let base = world.directory("skills");
    fs::write(base.join("a"), "text").unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
    let sandbox = world.launch(&with(world, vec![bind(&base, "", "/mnt/skills", true, Missing::Refuse)]));
    assert_eq!(sandbox.said("cat /mnt/skills/a"), "text");
    for command in
        ["touch /mnt/skills/b", "echo x > /mnt/skills/a", "rm /mnt/skills/a", "chmod 777 /mnt/skills/a"]
    {
        assert!(sandbox.refused(command).contains("Read-only file system"), "{command}");
    }
    sandbox.refused("mount -o remount,bind,rw /mnt/skills");
}

fn what_is_missing_is_made_refused_or_empty(world: &World) {
    let base = world.directory("base");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
    if world.kind == Kind::Root {
        world.give(&base, 1000);
    }
    let spec = with(
        world,
        vec![
            bind(&base, "threads/one/user-data", "/mnt/user-data", false, Missing::Create),
            bind(&base, "skills", "/mnt/skills", true, Missing::Empty),
        ],
    );
    let sandbox = world.launch(&spec);
    sandbox.said("touch /mnt/user-data/a");
    assert_eq!(sandbox.said("ls -A /mnt/skills"), "");
    sandbox.refused("touch /mnt/skills/a");
    assert!(!base.join("skills").exists());
    let owner = fs::metadata(&base).unwrap().uid();
    for path in ["threads", "threads/one", "threads/one/user-data", "threads/one/user-data/a"] {
        assert_eq!(fs::metadata(base.join(path)).unwrap().uid(), owner, "{path}");
    }
    assert_eq!(sandbox.launched.messages.len(), 1);
    assert!(sandbox.launched.messages[0].contains("/mnt/skills is empty"));
    let refused = failure(world, &with(world, vec![bind(&base, "none", "/mnt/x", true, Missing::Refuse)]));
    assert!(refused.starts_with("show ") && refused.contains("/none: No such file"), "{refused}");
}

fn a_symbolic_link_planted_below_a_base_is_refused(world: &World) {
    let base = world.directory("base");
    fs::create_dir(base.join("thread")).unwrap();
    symlink("/etc", base.join("thread/link")).unwrap();
    for below in ["thread/link", "thread/link/ssl"] {
        for missing in [Missing::Refuse, Missing::Create, Missing::Empty] {
            let spec = with(world, vec![bind(&base, below, "/mnt/x", false, missing)]);
            let text = failure(world, &spec);
            assert!(text.contains("symbolic links") && text.contains("thread/link"), "{text}");
        }
    }
}

/// A second thread swaps a directory for a link to a secret and back, as fast as it can.
fn a_symbolic_link_swapped_in_shows_nothing_else(world: &World) {
    let (base, secret) = (world.directory("base"), world.directory("secret"));
    fs::write(secret.join("secret"), "secret").unwrap();
    fs::create_dir_all(base.join("a/inner")).unwrap();
    fs::create_dir(secret.join("inner")).unwrap();
    fs::write(secret.join("inner/secret"), "secret").unwrap();
    symlink(&secret, base.join("b")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                renameat_with(CWD, base.join("a"), CWD, base.join("b"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut shown, mut refused) = (0, 0);
        for round in 0..60 {
            let missing = if round % 2 == 0 { Missing::Refuse } else { Missing::Create };
            let spec = with(world, vec![bind(&base, "a/inner", "/mnt/x", false, missing)]);
            match world.runtime.block_on(world.launcher().launch(&spec, world.fds(&spec.id))) {
                Ok(launched) => {
                    let seen = fs::read_dir(format!("/proc/{}/root/mnt/x", launched.pid)).unwrap().count();
                    assert_eq!(seen, 0, "the secret is inside");
                    shown += 1;
                    rustix::process::pidfd_send_signal(&launched.pidfd, rustix::process::Signal::KILL)
                        .unwrap();
                }
                Err(LaunchError::Step(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(shown > 0 && refused > 0, "the race was not run: {shown} shown, {refused} refused");
    });
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 2);
}

/// What an earlier life of the sandbox left in its files decides nothing outside of them.
fn a_planted_link_at_a_target_leads_nowhere(world: &World) {
    let outside = world.directory("outside");
    let spec = world.spec("planted");
    let sandbox = world.launch(&spec);
    sandbox.said(&format!("rm -rf /mnt && ln -s {} /mnt", outside.display()));
    sandbox.said("rm /etc/hosts && ln -s /etc/passwd /etc/hosts");
    drop(sandbox);
    let base = world.directory("base");
    let again =
        LaunchSpec { binds: vec![bind(&base, "", "/mnt/user-data", false, Missing::Refuse)], ..spec.clone() };
    let text = failure(world, &again);
    assert!(text.contains("symbolic links") && text.contains("/mnt/user-data"), "{text}");
    let sandbox = world.launch(&LaunchSpec { binds: vec![], ..spec });
    assert!(sandbox.said("cat /etc/hosts; grep -c gem /etc/passwd").ends_with('1'));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!fs::read_to_string("/etc/passwd").unwrap().contains("planted"));
}

fn mounts_below_a_mount_are_shown_in_their_places(world: &World) {
    let (data, other) = (world.directory("data"), world.directory("other"));
    fs::write(other.join("here"), "").unwrap();
    let spec = with(
        world,
        vec![
            bind(&data, "", "/mnt/user-data", false, Missing::Refuse),
            bind(&other, "", "/mnt/user-data/uploads/inner", true, Missing::Refuse),
        ],
    );
    let sandbox = world.launch(&spec);
    assert_eq!(sandbox.said("ls /mnt/user-data/uploads/inner"), "here");
    let made = fs::metadata(data.join("uploads/inner")).unwrap();
    assert_eq!(made.uid(), fs::metadata(&data).unwrap().uid());
    sandbox.refused("touch /mnt/user-data/uploads/inner/x");
    sandbox.said("touch /mnt/user-data/uploads/x");
}

fn a_way_up_in_a_path_is_refused(world: &World) {
    let base = world.directory("base");
    fs::create_dir(base.join("a")).unwrap();
    for (below, target) in [("a/../..", "/mnt/x"), ("..", "/mnt/x"), ("a", "/mnt/../../x")] {
        let text = failure(world, &with(world, vec![bind(&base, below, target, true, Missing::Create)]));
        assert!(text.contains("Invalid argument"), "{text}");
    }
}
