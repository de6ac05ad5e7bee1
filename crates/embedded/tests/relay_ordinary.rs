//! The relay of an ordinary user: in a user namespace where that user is everything, found again from outside.

#![allow(unsafe_code, reason = "a child that enters namespaces before it executes a test")]
#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use stockade_core::id::SandboxId;

#[path = "support/world.rs"]
mod world;

use world::{AGENT_PORT, World, agent, connect, echo, says};

/// Where the two halves of a test meet.
const MEETING: &str = "RELAY_TEST_DIRECTORY";
/// An ordinary user, when we are root.
const USER: u32 = 1000;

/// This test executable and the roles, where an ordinary user may execute them.
struct Stage {
    directory: tempfile::TempDir,
    tests: PathBuf,
    roles: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = |from: &Path, name: &str| {
            let to = directory.path().join(name);
            std::fs::copy(from, &to).unwrap();
            std::fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
            to
        };
        let tests = copy(&std::env::current_exe().unwrap(), "tests");
        let roles = copy(&world::roles(), "roles");
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&state, Some(USER), Some(USER)).unwrap();
        }
        Self { directory, tests, roles }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Runs one of the tests below as an ordinary user, who enters namespaces first.
    fn run(&self, name: &str, enter: fn(&Path) -> io::Result<()>) {
        let state = self.state();
        let mut command = Command::new(&self.tests);
        command.args([name, "--exact"]).env_clear();
        command.env("EMBEDDED_ROLES", &self.roles).env(MEETING, &state).current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        // SAFETY: the child has one thread, and nothing it locks was locked by others when it was made: what
        // it allocates comes from a C library that allows that after a fork.
        unsafe { command.pre_exec(move || enter(&state)) };
        let output =
            command.output().unwrap_or_else(|error| panic!("{name} cannot enter its namespaces: {error}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Only its user may ask the relay; root may look who holds the lock.
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours = arguments
                .split(|byte| *byte == 0)
                .any(|one| OsStr::new(&*String::from_utf8_lossy(one)) == self.state().as_os_str());
            if ours && let Ok(pid) = entry.file_name().to_string_lossy().parse() {
                world::kill(pid);
            }
        }
    }
}

/// As the server does at its start: a user namespace in which this user is everything.
fn new_namespaces(_: &Path) -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Who changed its user is not dumpable, and may not write its own maps.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // SAFETY: the process has one thread, and descriptors are not affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// As the server does when a relay lives: its namespaces.
fn namespaces_of_the_relay(state: &Path) -> io::Result<()> {
    let pid = stockade_embedded::relay::find(state).map_err(io::Error::other)?;
    let pid = pid.ok_or(io::ErrorKind::NotConnected)?;
    let open = |kind: &str| -> io::Result<OwnedFd> {
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/{kind}"))?.into())
    };
    let (user, mount) = (open("user")?, open("mnt")?);
    move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
    move_into_link_name_space(mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
    Ok(())
}

#[test]
fn an_ordinary_user_has_a_relay_and_finds_it_again_from_outside_its_namespaces() {
    let stage = Stage::new();
    stage.run("ordinary_first_server", new_namespaces);
    stage.run("ordinary_second_server", namespaces_of_the_relay);
    stage.run("ordinary_server_elsewhere", new_namespaces);
}

fn options() -> stockade_embedded::relay::RelayOptions {
    let mut options =
        stockade_embedded::relay::RelayOptions::new(Path::new(&std::env::var_os(MEETING).unwrap()));
    options.executable = world::roles();
    options
}

#[tokio::test]
async fn ordinary_first_server() {
    if !is_other_half() {
        return;
    }
    let mut world = World::at(options()).await;
    let (_, address) = world.echoing("ordinary").await;
    assert_eq!(says(&mut connect(address).await, b"hello").await, b"hello");
    world.keep();
}

#[tokio::test]
async fn ordinary_second_server() {
    if !is_other_half() {
        return;
    }
    let mut world = World::at(options()).await;
    let id = SandboxId::new("ordinary").unwrap();
    let listed = world.listed(&id).await;
    assert_eq!(listed.connections, 1);
    // The agent ended with the first server's process; here is another.
    let namespace = world.namespace().await;
    tokio::spawn(echo(agent(&namespace)));
    world.relay.attach(&id, namespace, AGENT_PORT).await.unwrap();
    assert_eq!(says(&mut connect(listed.address).await, b"again").await, b"again");
    world.keep();
}

#[tokio::test]
async fn ordinary_server_elsewhere() {
    if !is_other_half() {
        return;
    }
    let error = stockade_embedded::relay::Relay::connect_or_start(options()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("another user namespace"), "{text}");
}

/// Whether this process was started by the test above, as another user: alone, these tests have nothing to say.
fn is_other_half() -> bool {
    std::env::var_os(MEETING).is_some()
}
