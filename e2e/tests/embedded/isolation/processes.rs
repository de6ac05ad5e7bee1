//! Other processes: the machine's, the agent, other sandboxes'.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use stockade_e2e::wait;

use crate::sandbox::Sandbox;
use crate::world::{as_each_user, as_root};

const NAMESPACES: [&str; 7] = ["net", "pid", "mnt", "ipc", "uts", "user", "cgroup"];

fn namespaces_of(process: &str) -> BTreeMap<String, String> {
    let link = |name: &str| std::fs::read_link(format!("/proc/{process}/ns/{name}")).ok();
    let links = NAMESPACES.iter().filter_map(|name| Some(((*name).to_owned(), link(name)?)));
    links.map(|(name, link)| (name, link.to_string_lossy().into_owned())).collect()
}

/// The number that a process of the sandbox has outside, found by an argument nobody else has.
async fn outside_number(sandbox: &Sandbox) -> u32 {
    let mark = format!("{}.{}", 7_000_000 + std::process::id(), std::process::id() % 97);
    sandbox.start(&format!("exec sleep {mark}")).await;
    wait::until("a process of the sandbox is seen outside", Duration::from_secs(10), async || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let wanted = format!("sleep\0{mark}\0");
        let is_it =
            |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c == wanted.as_bytes());
        pids.find(is_it).ok_or("none")
    })
    .await
}

/// The agent: the process that is number 1 in the namespace of `pid`.
fn agent_of(pid: u32) -> u32 {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let is_first = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|other| is_first(*other) && namespace(*other) == namespace(pid)).expect("the agent")
}

#[test]
fn other_processes_and_the_agent_are_out_of_reach() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("processes").await;
        let parent = std::os::unix::process::parent_id();
        let facts = json!({
            "host_pids": [std::process::id(), parent, 2],
            "namespaces": namespaces_of("self"),
        });
        sandbox.withstands(include_str!("attacks/processes.py"), &facts, 60).await;
    });
}

/// What DeerFlow does to find and end the commands of a session.
#[test]
fn sessions_of_one_sandbox_see_each_other() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("sessions").await;
        sandbox.start("TOKEN=of-the-other exec sleep 1000").await;
        let script = "until p=$(grep -la TOKEN=of-the-other /proc/[0-9]*/environ 2>/dev/null | grep -v self | head -1); [ -n \"$p\" ]; do :; done
            p=${p%/environ}; read -r s < $p/stat && kill -9 ${p#/proc/} && echo killed";
        assert_eq!(sandbox.sh(script).await.stdout, "killed\n");
    });
}

#[test]
fn sandboxes_do_not_see_each_other() {
    as_each_user(async |world| {
        let (one, other) = (world.sandbox("one").await, world.sandbox("other").await);
        one.start("exec sleep 7654321").await;
        let runs = "until cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 765432[1]'; do :; done; echo runs";
        assert_eq!(one.sh(runs).await.stdout, "runs\n");
        one.sh("echo secret > /tmp/of-one; echo secret > ~/of-one; echo secret > /dev/shm/of-one").await;
        one.sh("python3 -c 'import ctypes; print(ctypes.CDLL(None).shmget(4711, 4096, 0o1666))'").await;
        let seen = other
            .sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 765432[1]'; \
                 find / -xdev -name of-one 2>/dev/null; ls /dev/shm; grep -c 4711 /proc/sysvipc/shm; hostname")
            .await;
        assert_eq!(seen.stdout, "0\n0\nother\n", "{seen:?}");
    });
}

/// Looked at from outside, where every descriptor of the agent can be seen.
#[test]
fn nothing_of_the_machine_is_open_inside() {
    as_root(async |world| {
        let sandbox = world.sandbox("descriptors").await;
        let command = outside_number(&sandbox).await;
        let agent = agent_of(command);
        let ours = namespaces_of("self");
        for pid in [agent, command] {
            let theirs = namespaces_of(&pid.to_string());
            assert_eq!(theirs.len(), NAMESPACES.len());
            for (name, link) in &theirs {
                assert_ne!(link, &ours[name], "process {pid} is in the machine's namespace {name}");
            }
        }
        let own_sockets = sockets_listed_for(agent);
        let entries = std::fs::read_dir(format!("/proc/{agent}/fd")).unwrap().flatten();
        for (number, link) in
            entries.filter_map(|e| Some((e.file_name(), std::fs::read_link(e.path()).ok()?)))
        {
            let text = link.to_string_lossy().into_owned();
            if let Some(inode) = text.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
                assert!(
                    own_sockets.contains(&inode.to_owned()),
                    "descriptor {number:?} is another network's {text}"
                );
            }
            for word in ["net:[", "mnt:[", "user:[", "pid:[", "/host", "launcher", "api-key"] {
                assert!(!text.contains(word), "descriptor {number:?} of the agent is {text}");
            }
            if text.starts_with('/') {
                assert!(is_harmless(&link), "descriptor {number:?} of the agent is {text}");
            }
        }
    });
}

/// Paths an agent may have open: its log, its own devices, the groups of its commands, and what counts kills for memory
/// in its own.
fn is_harmless(link: &std::path::Path) -> bool {
    let text = link.to_string_lossy();
    let memory = text.starts_with("/memfd:");
    let device =
        ["/dev/null", "/dev/ptmx", "/dev/pts/", "/dev/urandom"].iter().any(|path| text.starts_with(path));
    let group = text.ends_with("/commands/tasks")
        || text.ends_with("/commands/cgroup.procs")
        || text == "/commands/tasks"
        || text.starts_with("/sys/fs/cgroup/") && text.ends_with("/memory.oom_control")
        || text == "/sys/fs/cgroup/memory.events";
    let log = link.file_name().is_some_and(|name| name.to_string_lossy().contains("log"));
    memory || device || group || log
}

/// The sockets of the network that `pid` is in, by inode.
fn sockets_listed_for(pid: u32) -> Vec<String> {
    let column = [("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9), ("unix", 6), ("netlink", 9)];
    let of = |(file, column): &(&str, usize)| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        let inodes =
            text.lines().skip(1).filter_map(|l| l.split_whitespace().nth(*column).map(str::to_owned));
        inodes.collect::<Vec<_>>()
    };
    column.iter().flat_map(of).collect()
}

#[test]
fn variables_of_the_server_are_not_inside() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("variables").await;
        let key = std::fs::read_to_string(world.state.join("api-key")).unwrap();
        let output = sandbox
            .sh("env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'")
            .await;
        assert!(output.stdout.contains("HOME="));
        for secret in
            [key.trim(), "STOCKADE_API", "STOCKADE_STATE", "PROVISIONER", world.state.to_str().unwrap()]
        {
            assert!(!output.stdout.contains(secret), "{secret}: {}", output.stdout);
        }
    });
}

/// A process of the machine with the very user that the sandbox has outside is not signalled; one inside is.
#[test]
fn signals_to_everybody_stay_inside() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("signals").await;
        let inside = outside_number(&sandbox).await;
        let user =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{inside}")).unwrap());
        let mut command = std::process::Command::new("sleep");
        std::os::unix::process::CommandExt::uid(&mut command, user);
        let mut outside = command.arg("1000").spawn().unwrap();
        for signal in ["TERM", "KILL"] {
            let output = sandbox.sh(&format!("kill -{signal} -1; echo sent")).await;
            assert_eq!(output.stdout, "sent\n", "{output:?}");
        }
        wait::until("the one inside has ended", Duration::from_secs(10), async || {
            if std::path::Path::new(&format!("/proc/{inside}")).exists() { Err("it runs") } else { Ok(()) }
        })
        .await;
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
    });
}
