//! The cluster's own network, mount and process namespaces.
//!
//! One small process, the holder, is process 1 of the process namespace; the other two live as long
//! as it does. When it ends, for whatever reason, the kernel ends every process inside, containers
//! and their shims included, and with them go all mounts, interfaces and rules: nothing has to be
//! found and removed one by one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::processes::{self, Identity};
use crate::run;

/// A marker in directories that exist only as mount points of ours.
const MARKER: &str = ".made-by-stockade-test-cluster";
/// Places that kubelet, CNI and containerd have compiled in. Inside, each is a directory of ours.
const MOUNT_POINTS: [&str; 2] = ["/var/lib/kubelet", "/var/lib/cni"];

/// Sysctls that the kubelet sets for the whole machine. Inside, each is a file with the value that
/// it wants, so it leaves the machine's alone.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The process that holds the namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which process.
    pub identity: Identity,
}

impl Holder {
    /// Starts the holder in new namespaces. `program` is a static one that waits and reaps.
    ///
    /// # Errors
    /// When the namespaces cannot be made (root is needed) or the program does not start.
    pub fn start(layout: &Layout, program: &Path) -> Result<Self> {
        let holder = layout.holder();
        std::fs::copy(program, &holder)
            .with_context(|| format!("cannot copy {} to {}", program.display(), holder.display()))?;
        // Without --fork: the shell's first child becomes process 1, and no parent stays around.
        // Propagation is "slave": mounts made on the host later appear inside, never the reverse.
        let script = r#"setsid "$0" </dev/null >"$1" 2>&1 & echo $!"#;
        let mut command = run::command(&["unshare", "--mount", "--propagation", "slave", "--net", "--pid"]);
        command.args(["/bin/sh", "-c", script]).arg(&holder).arg(layout.log("holder"));
        let printed = run::output(&mut command).context("cannot make the cluster's namespaces")?;
        Ok(Self { identity: Identity::of(parse_pid(&printed)?)? })
    }

    /// Ends everything in the namespaces, at once.
    ///
    /// # Errors
    /// When a process inside survives SIGKILL.
    pub fn end(&self) -> Result<()> {
        self.identity.kill()
    }

    /// Runs a shell script inside, as process of the namespaces.
    ///
    /// # Errors
    /// When the script fails.
    pub fn run(&self, script: &str) -> Result<String> {
        run::output(self.enter(&["--pid"]).args(["/bin/sh", "-ec", script]))
    }

    /// Starts a program inside that outlives this one: own session, output appended to `log`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, line: &[String], log: &Path) -> Result<Identity> {
        // The program's environment is only what is written here: a developer's proxy settings or
        // Kubernetes variables must not change what a test cluster does.
        let script = r#"cd /; log=$1; shift
setsid env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@" </dev/null >>"$log" 2>&1 & echo $!"#;
        // The shell is inside, so the holder inherits the program and reaps it. Inherited by process
        // 1 of the machine, which in a container may reap nobody, it would keep the namespace from
        // ending.
        let mut command = self.enter(&["--pid"]);
        command.args(["/bin/sh", "-c", script, "sh"]).arg(log).args(line);
        let inner = parse_pid(&run::output(&mut command)?)?;
        self.find(inner)?.with_context(|| {
            format!("{} ended at once; its log is {}", line.first().map_or("", String::as_str), log.display())
        })
    }

    /// The process that has this id inside.
    fn find(&self, inner: i32) -> Result<Option<Identity>> {
        let namespace = std::fs::read_link(self.namespace("pid")).context("the namespaces have ended")?;
        Ok(processes::all()?.into_iter().find_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let same_id = innermost_pid(&status) == Some(inner);
            let inside =
                || std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == namespace);
            if same_id && inside() { Identity::of(pid).ok() } else { None }
        }))
    }

    /// Whether something can be done inside. While the holder is ending it has its id still, and
    /// its namespaces no longer.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.identity.is_alive() && std::fs::read_link(self.netns()).is_ok()
    }

    fn enter(&self, namespaces: &[&str]) -> std::process::Command {
        let mut command = run::command(&["nsenter", "--target"]);
        command.arg(self.identity.pid.to_string()).args(["--mount", "--net"]).args(namespaces).arg("--");
        command
    }

    /// The network namespace, for `nsenter --net=`. It is there exactly as long as the cluster.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        self.namespace("net")
    }

    /// A namespace of the holder as a path.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.identity.pid))
    }

    /// A path of the cluster's file system as seen from the host.
    #[must_use]
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.identity.pid))
    }

    /// Mounts what has to differ from the host.
    ///
    /// # Errors
    /// When a directory cannot be made or a mount is refused.
    pub fn mount(&self, layout: &Layout, with_node: bool) -> Result<()> {
        let mut script = String::from(
            // Shared from here on, so that a kubelet can hand mounts on to containers.
            "mount --make-rshared /\n\
             mount -t proc proc /proc\n\
             mount -t tmpfs -o mode=755 run /run\n\
             mkdir -p /run/lock /run/netns\n",
        );
        if !with_node {
            self.run(&script).context("cannot mount the cluster's file systems")?;
            return Ok(());
        }
        let mut bind = |source: &Path, target: &str| {
            script.push_str(&format!("mount --bind {} {target}\n", quote(source)));
        };
        for target in MOUNT_POINTS {
            make_mount_point(Path::new(target))?;
            bind(&make_directory(&layout.data(&target.replace('/', "-")))?, target);
        }
        bind(&make_directory(&layout.state().join("logs"))?, "/var/log");
        let sysctls = make_directory(&layout.data("sysctl"))?;
        for (name, value) in SYSCTLS {
            let file = sysctls.join(name.replace('/', "."));
            std::fs::write(&file, format!("{value}\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
            bind(&file, &format!("/proc/sys/{name}"));
        }
        self.run(&script).context("cannot mount the cluster's file systems")?;
        Ok(())
    }

    /// Binds a file or directory of the host over a path inside.
    ///
    /// # Errors
    /// When the mount is refused.
    pub fn bind(&self, source: &Path, target: &str) -> Result<()> {
        self.run(&format!("mount --bind {} {target}", quote(source)))?;
        Ok(())
    }
}

/// A path as one word of a shell script.
#[must_use]
pub fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn parse_pid(printed: &str) -> Result<i32> {
    printed.trim().parse().with_context(|| format!("expected a process id, got {printed:?}"))
}

/// The last id in the line `NSpid`: the process's own view.
fn innermost_pid(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

fn make_directory(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))?;
    Ok(path.to_path_buf())
}

/// Makes an empty directory on the host where there is none, with a marker that it is ours.
fn make_mount_point(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directory(path)?;
    std::fs::write(
        path.join(MARKER),
        "A mount point of a test cluster; `cargo xtask cluster down` removes it.\n",
    )
    .with_context(|| format!("cannot mark {}", path.display()))
}

/// Removes the mount points that were made, unless another cluster has something mounted there.
///
/// # Errors
/// When a directory of ours cannot be removed.
pub fn remove_mount_points() -> Result<()> {
    for path in MOUNT_POINTS.map(Path::new) {
        let marker = path.join(MARKER);
        if !marker.is_file() || is_mounted_somewhere(path)? {
            continue;
        }
        let only_marker = std::fs::read_dir(path).is_ok_and(|entries| entries.count() == 1);
        if only_marker {
            std::fs::remove_file(&marker)
                .and_then(|()| std::fs::remove_dir(path))
                .with_context(|| format!("cannot remove the mount point {}", path.display()))?;
        }
    }
    Ok(())
}

fn is_mounted_somewhere(path: &Path) -> Result<bool> {
    Ok(processes::all()?.into_iter().any(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
            .is_ok_and(|mounts| mount_points(&mounts).any(|point| Path::new(point) == path))
    }))
}

/// The mount points of a `mountinfo` text.
pub fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4))
}

/// Holders of this cluster that run, whether or not a record of them was written.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find_holders(layout: &Layout) -> Result<Vec<Holder>> {
    let program = layout.holder();
    let deleted = format!("{} (deleted)", program.display());
    Ok(processes::all()?
        .into_iter()
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe == program || exe.as_os_str() == deleted.as_str())
        })
        .filter_map(|pid| Some(Holder { identity: Identity::of(pid).ok()? }))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_the_fifth_field() {
        let text = "36 35 98:0 / /mnt rw - ext4 /dev/x rw\n37 35 0:1 /a /var/lib/cni ro - tmpfs t rw\n";
        assert_eq!(mount_points(text).collect::<Vec<_>>(), ["/mnt", "/var/lib/cni"]);
    }

    #[test]
    fn a_process_of_nested_namespaces_has_its_own_id_last() {
        assert_eq!(innermost_pid("Name:\tx\nNSpid:\t4242\t17\n"), Some(17));
        assert_eq!(innermost_pid("Name:\tx\n"), None);
    }

    #[test]
    fn what_a_shell_prints_that_is_no_process_id_is_shown() {
        assert!(parse_pid("oops").unwrap_err().to_string().contains("oops"));
        assert_eq!(parse_pid("12\n").unwrap(), 12);
    }
}
