//! What is inside, and what is not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use stockade_embedded::launch::LaunchSpec;
use stockade_embedded::launch::spec::WritableLayer;

use crate::Test;
use crate::world::{Kind, World};

pub(crate) const TESTS: &[Test] = &[
    ("the_agent_is_process_1_of_an_unprivileged_user", the_agent_is_process_1_of_an_unprivileged_user),
    ("the_environment_is_the_specification_s_alone", the_environment_is_the_specification_s_alone),
    ("secrets_of_the_machine_are_not_there", secrets_of_the_machine_are_not_there),
    ("files_only_root_may_read_stay_unreadable", files_only_root_may_read_stay_unreadable),
    ("the_system_can_be_written_to_and_forgets", the_system_can_be_written_to_and_forgets),
    ("files_survive_the_processes_on_disk", files_survive_the_processes_on_disk),
    ("memory_as_a_writable_layer_is_bounded", memory_as_a_writable_layer_is_bounded),
    ("python_and_node_install_packages", python_and_node_install_packages),
    ("devices_are_few_and_work", devices_are_few_and_work),
    ("proc_shows_this_sandbox_and_tells_little", proc_shows_this_sandbox_and_tells_little),
    ("no_descriptor_but_the_standard_ones_is_inherited", no_descriptor_but_the_standard_ones_is_inherited),
    ("names_are_the_sandbox_s_own", names_are_the_sandbox_s_own),
    ("nothing_setuid_has_any_effect", nothing_setuid_has_any_effect),
    ("archives_and_repositories_are_made_and_unpacked", archives_and_repositories_are_made_and_unpacked),
    ("the_machine_s_own_user_of_that_number_is_another", the_machine_s_own_user_of_that_number_is_another),
    ("what_is_counted_by_user_is_counted_apart", what_is_counted_by_user_is_counted_apart),
    ("an_ordinary_user_s_processes_are_limited", an_ordinary_user_s_processes_are_limited),
    (
        "no_command_outlives_the_agent_when_memory_is_short",
        no_command_outlives_the_agent_when_memory_is_short,
    ),
    ("nothing_can_be_mounted_or_unshared", nothing_can_be_mounted_or_unshared),
    ("the_network_is_the_one_that_was_given", the_network_is_the_one_that_was_given),
];

fn the_agent_is_process_1_of_an_unprivileged_user(world: &World) {
    let sandbox = world.plain("user");
    assert_eq!(
        sandbox.said("id -u; id -g; id -un; echo $HOME; pwd"),
        "1000\n1000\ngem\n/home/gem\n/home/gem"
    );
    let status = sandbox.said("cat /proc/self/status");
    for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{line}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    if world.kind == Kind::Root {
        assert!(status.contains("Groups:\t \n"), "{status}");
    }
    assert!(sandbox.said("cat /proc/1/cmdline").starts_with("stockade-agent"));
    let outside = fs::read_to_string(format!("/proc/{}/status", sandbox.launched.pid)).unwrap();
    assert!(outside.contains("NSpid:") && !outside.contains("Uid:\t1000"), "{outside}");
}

fn the_environment_is_the_specification_s_alone(world: &World) {
    let environment = BTreeMap::from([
        ("TOKEN".to_owned(), "a=b c".to_owned()),
        ("TZ".to_owned(), "Asia/Tokyo".to_owned()),
    ]);
    let sandbox = world.launch(&LaunchSpec { environment, ..world.spec("environment") });
    let names = sandbox.said("env | cut -d= -f1 | sort | tr '\\n' ' '");
    for known in ["CARGO", "RUST", "SSH", "PYENV"] {
        assert!(!names.contains(known), "{names}");
    }
    assert_eq!(sandbox.said("echo \"$TOKEN\"; date +%Z"), "a=b c\nJST");
}

fn secrets_of_the_machine_are_not_there(world: &World) {
    let sandbox = world.plain("secrets");
    for path in [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/ssh",
        "/etc/sudoers",
        "/etc/sudoers.d",
        "/etc/machine-id",
        "/etc/apt",
        "/etc/kubernetes",
        "/etc/docker",
        "/etc/containerd",
        "/etc/npmrc",
        "/etc/pip.conf",
        "/etc/wgetrc",
        "/etc/environment",
        "/etc/ssl/private",
        "/var/lib/dpkg",
        "/var/log/apt",
        "/boot",
        "/lost+found",
        "/root/.bashrc",
        "/root/.ssh",
        "/run/systemd",
        "/var/run/docker.sock",
        "/sys/fs/cgroup/memory",
        "/sys/kernel/debug",
        "/sys/class",
        "/work",
        "/srv/x",
    ] {
        sandbox.refused(&format!("test -e {path}"));
    }
    assert_eq!(sandbox.said("ls /home"), "gem");
    assert_eq!(
        sandbox.said("ls -A /root /opt /srv /media /run/lock"),
        "/media:\n\n/opt:\n\n/root:\n\n/run/lock:\n\n/srv:".to_owned()
    );
    assert_eq!(sandbox.said("find / -xdev -type s 2>/dev/null; cat /etc/passwd | wc -l"), "4");
    let stage = world.path("stage");
    sandbox.refused(&format!("test -e {}", stage.display()));
    assert_eq!(sandbox.said("grep -c stockade-launch- /proc/self/mountinfo || true"), "0");
    // Ours, not the machine's, which may name proxies and credentials.
    assert_eq!(sandbox.said("cat /etc/gitconfig"), "[safe]\n\tdirectory = *");
}

/// Whose files are that belong to nobody inside.
const NOBODY: u32 = 65_534;

/// A directory of the system with a file for root alone, and a hidden place in it.
fn files_only_root_may_read_stay_unreadable(world: &World) {
    if world.kind == Kind::Ordinary {
        return;
    }
    let directory = tempfile::Builder::new().prefix("stockade-test-").tempdir_in("/usr/local").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(directory.path().join("state/inner")).unwrap();
    let launcher = world.launcher_hiding(directory.path().join("state"));
    let sandbox = world.launch_with(&launcher, &world.spec("rootonly"));
    let at = directory.path().display();
    assert!(sandbox.refused(&format!("cat {at}/secret")).contains("Permission denied"));
    let owner = if world.facts.idmapped_layers { 0 } else { NOBODY };
    assert_eq!(sandbox.said(&format!("ls {at}; stat -c %u {at}/secret")), format!("secret\n{owner}"));
    sandbox.refused(&format!("ls {at}/state"));
    sandbox.refused(&format!("chmod 644 {at}/secret || cp {at}/secret /tmp/x"));
    sandbox.refused(&format!("mv {at}/secret /tmp/secret && cat /tmp/secret"));
}

fn the_system_can_be_written_to_and_forgets(world: &World) {
    let sandbox = world.plain("writing");
    for place in [
        "/",
        "/usr",
        "/usr/local",
        "/usr/local/bin",
        "/usr/bin",
        "/usr/lib",
        "/etc",
        "/var/lib",
        "/opt",
        "/srv",
        "/mnt",
        "/tmp",
        "/var/tmp",
        "/run",
    ] {
        sandbox.said(&format!(
            "echo mine > {place}/stockade-x && cat {place}/stockade-x && mkdir {place}/stockade-d"
        ));
        assert!(!std::path::Path::new(place).join("stockade-x").exists(), "{place}");
    }
    sandbox.said("rm /usr/bin/env && ! test -e /usr/bin/env");
    assert!(std::path::Path::new("/usr/bin/env").exists());
    let another = world.plain("writing");
    another.said("test -x /usr/bin/env && ! test -e /usr/local/stockade-x && ! test -e /tmp/stockade-x");
    another.said(
        "printf '#!/bin/sh\\necho it runs\\n' > /usr/local/bin/mine && chmod +x /usr/local/bin/mine && mine",
    );
}

fn files_survive_the_processes_on_disk(world: &World) {
    let spec = world.spec("again");
    let sandbox = world.launch(&spec);
    sandbox.said("echo one > ~/file; echo two > /usr/local/file; rm /usr/bin/yes");
    drop(sandbox);
    let again = world.launch(&spec);
    assert_eq!(again.said("cat ~/file /usr/local/file; test -e /usr/bin/yes || echo gone"), "one\ntwo\ngone");
}

fn memory_as_a_writable_layer_is_bounded(world: &World) {
    let writable = WritableLayer::Tmpfs { bytes: 8 << 20 };
    let sandbox = world.launch(&LaunchSpec { writable, ..world.spec("memory") });
    sandbox.said("head -c 4M /dev/zero > /tmp/a");
    assert!(sandbox.refused("head -c 16M /dev/zero > /tmp/b").contains("No space left"));
}

fn python_and_node_install_packages(world: &World) {
    let sandbox = world.plain("install");
    // No network: a package made on the spot.
    sandbox.said(
        "mkdir -p /tmp/p && cd /tmp/p && printf \"from setuptools import setup\\nsetup(name='stockadepkg', version='1', py_modules=['stockadepkg'])\\n\" > setup.py \
         && echo 'x = 42' > stockadepkg.py",
    );
    if sandbox.run("python3 -m pip --version && python3 -c 'import setuptools, wheel'").code == 0 {
        sandbox.said("cd /tmp/p && python3 -m pip install --user --no-build-isolation --no-index . && python3 -c 'import stockadepkg; print(stockadepkg.x)'");
        sandbox.said("cd /tmp/p && python3 -m pip uninstall -y stockadepkg && python3 -m pip install --no-build-isolation --no-index . && cd / && python3 -c 'import stockadepkg'");
    }
    if sandbox.run("python3 -c 'import ensurepip'").code == 0 {
        sandbox.said("python3 -m venv /tmp/venv && /tmp/venv/bin/python -c 'import sys; assert sys.prefix == \"/tmp/venv\"'");
    }
    if sandbox.run("npm --version").code == 0 {
        sandbox.said("mkdir -p /tmp/n && cd /tmp/n && echo '{\"name\":\"stockadenode\",\"version\":\"1.0.0\",\"bin\":\"run.js\"}' > package.json && printf '#!/usr/bin/env node\\nconsole.log(42)\\n' > run.js");
        assert_eq!(sandbox.said("cd /tmp/n && npm pack --silent >/dev/null && npm install -g --offline --silent ./stockadenode-1.0.0.tgz >/dev/null && stockadenode"), "42");
        sandbox.said("mkdir /tmp/m && cd /tmp/m && npm init -y >/dev/null && npm install --offline /tmp/n/stockadenode-1.0.0.tgz && test -e node_modules/stockadenode");
    }
}

fn devices_are_few_and_work(world: &World) {
    let sandbox = world.plain("devices");
    assert_eq!(
        sandbox.said("ls /dev | tr '\\n' ' '"),
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    sandbox.said("echo x > /dev/null && head -c 4 /dev/urandom > /dev/shm/a && ! echo x > /dev/full");
    assert_eq!(sandbox.said("head -c 3 /dev/zero | od -An -tx1 | tr -d ' '"), "000000");
    sandbox.said("python3 -c 'import os; a, b = os.openpty(); print(os.ttyname(b))'");
    for command in ["mknod /tmp/d b 254 0", "mknod /tmp/d c 1 1", "touch /dev/x"] {
        sandbox.refused(command);
    }
    assert!(sandbox.said("cat /sys/devices/system/cpu/online").starts_with('0'));
    sandbox.refused("touch /sys/x");
}

fn proc_shows_this_sandbox_and_tells_little(world: &World) {
    let sandbox = world.plain("proc");
    assert!(sandbox.said("ls -d /proc/[0-9]* | wc -l").parse::<u32>().unwrap() < 10);
    for file in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kallsyms", "/proc/modules"] {
        assert_eq!(sandbox.said(&format!("cat {file} 2>/dev/null | wc -c || true")), "0", "{file}");
    }
    for file in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
    ] {
        sandbox.refused(&format!("test -e {file} && echo x > {file} && test ! -c {file}"));
    }
    sandbox.refused("cat /proc/1/environ");
    sandbox.refused("ls /proc/1/fd");
    sandbox.refused("ls /proc/1/root");
    assert!(
        sandbox
            .said("grep -c processor /proc/cpuinfo; free >/dev/null; cat /proc/uptime")
            .starts_with(char::is_numeric)
    );
}

fn no_descriptor_but_the_standard_ones_is_inherited(world: &World) {
    let sandbox = world.plain("descriptors");
    assert_eq!(sandbox.said("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3");
    if world.kind == Kind::Ordinary {
        // The agent's memory and descriptors are nobody's to look at.
        return;
    }
    let agent = |what: &str| {
        let entries = fs::read_dir(format!("/proc/{}/{what}", sandbox.launched.pid)).unwrap();
        let name = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap().display().to_string();
        entries.map(|entry| name(entry.unwrap())).collect::<Vec<_>>()
    };
    // What the agent made itself is fine: sockets of the sandbox's own network, event queues, pipes within.
    let own = fs::read_link(format!("/proc/{}/ns/net", sandbox.launched.pid)).unwrap();
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(own, host);
    for open in agent("fd") {
        let known = ["/dev/null", "anon_inode:", "pipe:", "socket:", "/proc"]
            .iter()
            .any(|kind| open.starts_with(kind));
        assert!(known || open.ends_with(".log"), "{open}");
        assert!(!open.contains("net:["), "{open}");
    }
}

fn names_are_the_sandbox_s_own(world: &World) {
    let spec = LaunchSpec { name_server: Some([10, 1, 2, 3].into()), ..world.spec("names") };
    let sandbox = world.launch(&spec);
    assert_eq!(sandbox.said("hostname"), spec.id);
    assert_eq!(
        sandbox.said("cat /etc/hostname /etc/resolv.conf"),
        format!("{}\nnameserver 10.1.2.3", spec.id)
    );
    assert!(sandbox.said("getent ahosts localhost").contains("127.0.0.1"));
    sandbox.refused("hostname other");
    assert_eq!(sandbox.said("ipcs -m | grep -c 0x || true"), "0");
}

fn nothing_setuid_has_any_effect(world: &World) {
    let sandbox = world.plain("setuid");
    sandbox.refused("cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id");
    sandbox.refused("mkdir /tmp/group && chmod g+s /tmp/group");
    assert_eq!(
        sandbox.said("chmod 755 /tmp/id && /tmp/id -u && stat -c %a /tmp/id /tmp/group"),
        "1000\n755\n755"
    );
    sandbox.refused("su -c id root </dev/null");
    for mount in sandbox.said("cut -d' ' -f5,6 /proc/self/mountinfo").lines() {
        assert!(mount.contains("nosuid"), "{mount}");
        let devices = [
            "/dev ",
            "/dev/pts ",
            "/dev/null ",
            "/dev/zero ",
            "/dev/full ",
            "/dev/random ",
            "/dev/urandom ",
            "/dev/tty ",
        ];
        // Single devices that cover parts of /proc.
        let device = devices.iter().any(|place| mount.starts_with(place)) || mount.starts_with("/proc/");
        assert!(mount.contains("nodev") || device, "{mount}");
    }
}

fn archives_and_repositories_are_made_and_unpacked(world: &World) {
    let sandbox = world.plain("unpacking");
    sandbox.said("cd /tmp && install -m 755 /usr/bin/id mine && mkdir -m 1777 d && tar cf a.tar mine d && mkdir o && tar xpf a.tar -C o && o/mine -u");
    if sandbox.run("git --version").code == 0 {
        sandbox.said("cd /tmp && git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm x && git clone -q . ../c && cat ../c/f");
    }
    sandbox.said("cd /tmp && python3 -c \"import shutil, tempfile, os; d = tempfile.mkdtemp(); shutil.copytree('o', d + '/o'); tempfile.TemporaryFile().write(b'x')\"");
}

/// A file of the system for the machine's user 1000 alone: not the sandbox's user, though that has the number too.
fn the_machine_s_own_user_of_that_number_is_another(world: &World) {
    if world.kind == Kind::Ordinary {
        return;
    }
    let directory = tempfile::Builder::new().prefix("stockade-test-").tempdir_in("/usr/local").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, user, group, mode) in
        [("user", 1000, 0, 0o600), ("group", 0, 1000, 0o640), ("both", 1000, 1000, 0o660)]
    {
        let path = directory.path().join(name);
        fs::write(&path, "secret").unwrap();
        std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let sandbox = world.plain("thousand");
    for name in ["user", "group", "both"] {
        let path = directory.path().join(name);
        assert!(sandbox.refused(&format!("cat {}", path.display())).contains("Permission denied"));
        sandbox.refused(&format!("cp {} /tmp/x || chmod 644 {}", path.display(), path.display()));
    }
}

/// One sandbox takes all the inotify instances it gets; the others, and the machine's root, still have theirs.
fn what_is_counted_by_user_is_counted_apart(world: &World) {
    if world.kind == Kind::Ordinary {
        return;
    }
    let (greedy, other) = (world.plain("greedy"), world.plain("other"));
    let take = "import ctypes, time, sys
libc = ctypes.CDLL(None)
count = 0
while libc.inotify_init1(0) >= 0: count += 1
print(count, flush=True)
time.sleep(float(sys.argv[1]))";
    greedy.said(&format!(
        "(python3 -c '{take}' 60 > /tmp/count 2>&1 &) ; until [ -s /tmp/count ]; do sleep 0.05; done; cat /tmp/count"
    ));
    let left = |outcome: String| outcome.trim().parse::<u32>().unwrap();
    assert_eq!(left(greedy.said(&format!("python3 -c '{take}' 0"))), 0, "the limit was not reached");
    assert!(left(other.said(&format!("python3 -c '{take}' 0"))) > 8);
    let ours = std::process::Command::new("python3").args(["-c", take, "0"]).output().unwrap();
    assert!(left(String::from_utf8(ours.stdout).unwrap()) > 8, "the machine's root has none left");
}

/// As root it is control groups that limit them, and these tests make none.
fn an_ordinary_user_s_processes_are_limited(world: &World) {
    if world.kind == Kind::Root || !world.facts.counts_processes_apart() {
        return;
    }
    let spec = LaunchSpec { processes: Some(64), ..world.spec("forking") };
    let (sandbox, other) =
        (world.launch(&spec), world.launch(&LaunchSpec { processes: Some(64), ..world.spec("other") }));
    let bomb = "import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        count += 1
except OSError as error: print(error.errno)
print(count, flush=True)";
    sandbox
        .said(&format!("(python3 -c '{bomb}' > /tmp/count 2>&1 &); until read x < /tmp/count; do :; done"));
    let said = fs::read_to_string(format!("/proc/{}/root/tmp/count", sandbox.launched.pid)).unwrap();
    let (errno, count) = said.trim().split_once('\n').expect("the limit was not reached");
    assert_eq!(errno, libc::EAGAIN.to_string());
    assert!((20..64).contains(&count.parse::<u32>().unwrap()), "{count}");
    assert_eq!(other.said("(sleep 0 & wait) && echo fine"), "fine");
}

fn no_command_outlives_the_agent_when_memory_is_short(world: &World) {
    let sandbox = world.plain("score");
    let lowest = "for i in -1000 -900 -500 0 100; do echo $i > /proc/self/oom_score_adj && break; done 2>/dev/null; cat /proc/self/oom_score_adj";
    let lowest: i32 = sandbox.said(lowest).parse().unwrap();
    let agent = fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.launched.pid)).unwrap();
    assert!(agent.trim().parse::<i32>().unwrap() <= lowest.max(0), "{agent}, a command {lowest}");
}

fn nothing_can_be_mounted_or_unshared(world: &World) {
    let sandbox = world.plain("mounting");
    for command in [
        "mount -t tmpfs none /tmp",
        "umount -l /proc/kcore",
        "umount -l /proc/sys",
        "mount --bind / /mnt",
        "unshare -U true",
        "unshare -m true",
        "unshare -Ur true",
        "nsenter -t 1 -m true",
        "chroot / true",
        "pivot_root . .",
    ] {
        sandbox.refused(command);
    }
}

fn the_network_is_the_one_that_was_given(world: &World) {
    let sandbox = world.plain("network");
    assert_eq!(sandbox.said("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"), "lo");
    let inside = sandbox.said("cat /proc/net/unix | wc -l").parse::<u32>().unwrap();
    assert!(inside < 12, "{inside}");
}
