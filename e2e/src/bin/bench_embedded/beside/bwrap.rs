//! bubblewrap: everything on its command line.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{AGENT, ENVIRONMENT, ETC, HOME, LIMIT, Started, World, inside};

pub(super) struct Sandbox {
    child: Child,
    /// The first process inside; 0 when it is not known yet.
    pid: u32,
}

pub(super) fn start(world: &World) -> Result<Sandbox, String> {
    let (told, tell) = std::io::pipe().map_err(|error| error.to_string())?;
    let tell = OwnedFd::from(tell);
    rustix::io::fcntl_setfd(&tell, rustix::io::FdFlags::empty()).map_err(|error| error.to_string())?;
    let mut command = Command::new("bwrap");
    for name in ["user", "ipc", "pid", "net", "uts", "cgroup"] {
        command.arg(format!("--unshare-{name}"));
    }
    command.args(["--uid", "1000", "--gid", "1000", "--hostname", "bench", "--cap-drop", "ALL"]);
    command.args(["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]);
    command.arg("--info-fd").arg(tell.as_raw_fd().to_string());
    for (name, value) in ENVIRONMENT {
        command.args(["--setenv", name, value]);
    }
    for place in super::SYSTEM.map(Path::new) {
        match std::fs::read_link(place) {
            Ok(to) => command.arg("--symlink").args([&to, place]),
            Err(_) if place.is_dir() => command.arg("--ro-bind").args([place, place]),
            Err(_) => &mut command,
        };
    }
    for place in ETC.map(Path::new) {
        command.arg("--ro-bind-try").args([place, place]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev"]);
    for place in ["/tmp", "/run", "/var", HOME] {
        command.args(["--tmpfs", place]);
    }
    command.arg("--ro-bind").arg(world.path("stockade-agent")).arg(format!("{AGENT}/stockade-agent"));
    for (source, target, read_only) in world.mounts() {
        command.arg(if read_only { "--ro-bind" } else { "--bind" }).arg(source).arg(target);
    }
    command.arg("--").args(world.agent());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| format!("bwrap: {error}"))?;
    drop(tell);
    let mut sandbox = Sandbox { child, pid: 0 };
    sandbox.pid = told_pid(&told.into())?;
    Ok(sandbox)
}

/// Hears it out: it ends when nobody reads what it says.
fn told_pid(told: &OwnedFd) -> Result<u32, String> {
    let mut text = String::new();
    while !text.contains('}') {
        let mut bytes = [0; 512];
        let read = inside::read_within(told, LIMIT, &mut bytes)?;
        if read == 0 || text.len() > 4096 {
            return Err(format!("bwrap says {text:?}"));
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let said: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let pid = said["child-pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.ok_or_else(|| format!("bwrap says {text:?}"))
}

impl Started for Sandbox {
    fn pid(&mut self) -> u32 {
        self.pid
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Where the parent ends before its child asked to end with it, nobody would end that.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
