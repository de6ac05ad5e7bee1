//! The networks of an ordinary user's sandboxes: in a user namespace where that user is everything.

#![allow(unsafe_code, reason = "a child that enters namespaces before it executes a test")]
#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use stockade_core::egress::EgressPolicy;
use stockade_embedded::network::{Network, NetworkOptions, ResolvedPolicy, probe};

/// An ordinary user, when we are root.
const USER: u32 = 65_534;

/// Becomes an ordinary user who is root in a user namespace of their own.
fn become_ordinary() -> io::Result<()> {
    if geteuid().is_root() {
        // SAFETY: plain system calls with numbers, between fork and exec.
        let changed = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(USER, USER, USER) == 0
                && libc::setresuid(USER, USER, USER) == 0
        };
        if !changed {
            return Err(io::Error::last_os_error());
        }
    }
    // Who changed users could not write the maps otherwise.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: between fork and exec there is one thread, and nothing of ours is shared with it.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Set for the process that is an ordinary user's: the second test is the first one's other half.
const ORDINARY: &str = "STOCKADE_TEST_ORDINARY";

#[test]
fn an_ordinary_user_has_isolated_networks_and_is_told_why() {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "as_an_ordinary_user"]).env(ORDINARY, "1");
    // SAFETY: the closure allocates a little, which the C library allows in a forked child.
    let child = unsafe { command.pre_exec(become_ordinary) }.output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[tokio::test]
async fn as_an_ordinary_user() {
    if std::env::var_os(ORDINARY).is_none() {
        return;
    }
    let facts = probe();
    assert_eq!(facts.namespaces, Ok(()));
    assert_eq!(facts.filter, Ok(()), "the kernel has it, though not for the machine's own network");
    assert!(facts.lacking()[0].contains("run as root"), "{:?}", facts.lacking());

    let options = NetworkOptions {
        machine: "ordinary".to_owned(),
        subnet: None,
        default_mode: None,
        ready: NetworkOptions::READY,
    };
    let network = Network::start(options).await.unwrap();
    let closed = network.closed().unwrap();
    assert!(closed.contains("run as root") && closed.contains("not permitted"), "{closed}");
    assert_eq!(network.resolve(&EgressPolicy::default()), Ok(ResolvedPolicy::Isolated));
    for slot in 0..50 {
        let prepared = network.prepare(slot, &ResolvedPolicy::Open(Vec::new())).await.unwrap();
        assert!(prepared.messages[0].starts_with("the network is isolated"), "{:?}", prepared.messages);
        let reached = std::thread::spawn(move || {
            move_into_link_name_space(prepared.netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let own = std::net::TcpListener::bind("127.0.0.1:80").unwrap();
            std::net::TcpStream::connect(own.local_addr().unwrap()).unwrap();
            std::net::TcpStream::connect("198.51.100.1:80").unwrap_err().raw_os_error()
        });
        assert_eq!(reached.join().unwrap(), Some(libc::ENETUNREACH));
        network.release(slot).await.unwrap();
    }
}
