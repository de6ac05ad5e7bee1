//! On processes that really are confined.

#![allow(unsafe_code, reason = "what is tested happens between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use super::*;
use crate::facts::MachineFacts;

/// Runs `script` after `confine` was called in the process that runs it.
fn run(script: &str, confine: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    // SAFETY: what the tests pass here is made for the time between fork and exec.
    unsafe { command.pre_exec(confine) };
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn is_root() -> bool {
    MachineFacts::probe().privileged
}

#[test]
fn programs_run_under_the_filter_and_namespaces_cannot_be_made() {
    let program = seccomp::program();
    let output =
        run("ls / >/dev/null && echo listed; unshare -U true; unshare -n true", move || program.apply());
    let said = text(&output);
    assert!(said.starts_with("listed\n"), "{said}");
    assert_eq!(said.matches("Operation not permitted").count(), 2, "{said}");
}

#[test]
fn no_capability_is_left_and_none_comes_back() {
    if !is_root() {
        return;
    }
    let script = "grep -E '^Cap|NoNewPrivs' /proc/self/status; cat /etc/shadow";
    let output = run(script, || {
        capabilities::drop_all()?;
        // As the user of a sandbox, who is root nowhere; with root's own number the files would still be its own.
        rustix::thread::set_no_new_privs(true)?;
        Ok(())
    });
    let said = text(&output);
    assert_eq!(said.matches("\t0000000000000000\n").count(), 5, "{said}");
    let output = run("chown 1 /proc/self/stat; mount -t tmpfs none /tmp", capabilities::drop_all);
    assert!(!output.status.success());
}

#[test]
fn limits_of_a_process_are_what_was_said() {
    let limits = rlimits::limits();
    let output = run("cat /proc/self/limits", move || limits.apply());
    let said = text(&output);
    let limit = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    // What we have ourselves may be less.
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert_eq!(limit("Max open files"), [1024.min(ours).to_string(), 65_536.min(ours).to_string()]);
    assert_eq!(limit("Max core file size"), ["1", "1"]);
    let output = run("grep processes /proc/self/limits", || rlimits::limit_processes(77));
    assert_eq!(text(&output).matches(" 77 ").count(), 2);
}

#[test]
fn landlock_refuses_mounts_and_devices_and_leaves_files_alone() {
    let abi = landlock::abi();
    if !landlock::is_useful(abi) || !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "cd {} && mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && mkfifo p && cat b/f
         mount -t tmpfs none a; mknod n c 1 3; mknod m b 7 0; true",
        directory.path().display()
    );
    let output = run(&script, move || {
        rustix::thread::set_no_new_privs(true)?;
        landlock::restrict(abi)
    });
    let said = text(&output);
    assert!(said.starts_with("x\n"), "{said}");
    assert!(!directory.path().join("n").exists() && !directory.path().join("m").exists(), "{said}");
    assert!(said.contains("mount:"), "{said}");
    assert!(
        !std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(directory.path().to_str().unwrap())
    );
}

#[test]
fn the_whole_confinement_leaves_a_shell_that_works() {
    let (facts, program) = (MachineFacts::probe(), seccomp::program());
    let limits = rlimits::limits();
    let root = facts.privileged;
    let script = "set -e; x=$(mktemp); echo 42 | cat > $x; cat $x; rm $x; (sleep 0 & wait); echo done";
    let output = run(script, move || {
        limits.apply()?;
        rustix::thread::set_no_new_privs(true)?;
        landlock::restrict(facts.landlock_abi)?;
        if root {
            capabilities::drop_all()?;
        }
        program.apply()
    });
    assert_eq!(text(&output), "42\ndone\n");
}
