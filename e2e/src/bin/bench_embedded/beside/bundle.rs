//! What runc and crun are given: a root of empty directories, and `config.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::oci::Oci;
use super::{AGENT, ENVIRONMENT, ETC, HOME, SYSTEM, World};

/// The first user outside; one user inside has its number above this.
const FIRST: u32 = 0x7fe0_0000;
/// The sandbox's user, outside.
pub(super) const USER: u32 = FIRST + 1000;

/// Makes the bundle, once for all starts.
pub(super) fn make(world: &World, program: &'static str) -> Result<Oci, String> {
    let bundle = world.path(program);
    let root = bundle.join("rootfs");
    root_directories(world, &root).map_err(|error| format!("its root: {error}"))?;
    let config = config(world).to_string();
    std::fs::write(bundle.join("config.json"), config).map_err(|error| format!("its config: {error}"))?;
    Ok(Oci { program, bundle, root: world.path(&format!("{program}-state")) })
}

/// Places to mount on; the root itself is read-only.
fn root_directories(world: &World, root: &Path) -> std::io::Result<()> {
    let below = |place: &str| root.join(place.trim_start_matches('/'));
    for place in ["/proc", "/dev", "/sys", "/tmp", "/run", "/var", "/etc", HOME, AGENT] {
        std::fs::create_dir_all(below(place))?;
    }
    for place in SYSTEM {
        match std::fs::read_link(place) {
            Ok(to) => std::os::unix::fs::symlink(to, below(place))?,
            Err(_) if Path::new(place).is_dir() => std::fs::create_dir(below(place))?,
            Err(_) => {}
        }
    }
    for place in ETC {
        match std::fs::metadata(place) {
            Ok(found) if found.is_dir() => std::fs::create_dir(below(place))?,
            Ok(_) => std::fs::write(below(place), "")?,
            Err(_) => {}
        }
    }
    for (_, target, _) in world.mounts() {
        std::fs::create_dir_all(below(target))?;
    }
    std::fs::copy(world.path("stockade-agent"), below(AGENT).join("stockade-agent")).map(drop)
}

fn config(world: &World) -> Value {
    let mapping = json!([{ "containerID": 0, "hostID": FIRST, "size": 65_536 }]);
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"];
    let variables = ENVIRONMENT.map(|(name, value)| format!("{name}={value}"));
    json!({
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "terminal": false,
            "cwd": "/",
            "args": world.agent(),
            "env": variables,
            "user": { "uid": 1000, "gid": 1000 },
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
        },
        "mounts": mounts(world),
        "linux": {
            "namespaces": namespaces.map(|name| json!({ "type": name })),
            "uidMappings": mapping,
            "gidMappings": mapping,
            "resources": {
                "memory": { "limit": 2_147_483_648_u64 },
                "cpu": { "quota": 200_000, "period": 100_000 },
                "pids": { "limit": 512 },
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                "syscalls": [{ "names": FORBIDDEN, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] },
        },
    })
}

/// What no sandbox needs, of what an allow-list leaves out.
const FORBIDDEN: [&str; 30] = [
    "mount",
    "umount2",
    "pivot_root",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "mount_setattr",
    "setns",
    "unshare",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "open_by_handle_at",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "syslog",
    "personality",
    "io_uring_setup",
];

fn mounts(world: &World) -> Vec<Value> {
    let small = |place: &str, options: &[&str]| {
        let mut all = vec!["nosuid", "nodev"];
        all.extend(options);
        json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": all })
    };
    let bind = |source: &Path, target: &str, read_only: bool| {
        let access = if read_only { "ro" } else { "rw" };
        json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", access, "nosuid", "nodev"] })
    };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"] }),
        small("/tmp", &["mode=1777"]),
        small("/run", &["mode=755"]),
        small("/var", &["mode=755"]),
        small(HOME, &["mode=755", "uid=1000", "gid=1000"]),
    ];
    let plain = |place: &&str| Path::new(place).exists() && std::fs::read_link(place).is_err();
    for place in SYSTEM.iter().chain(&ETC).filter(|place| plain(place)) {
        mounts.push(bind(Path::new(place), place, true));
    }
    for (source, target, read_only) in world.mounts() {
        mounts.push(bind(&source, target, read_only));
    }
    mounts
}
