//! runc and crun, which have the same command line.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Started, World};

pub(super) struct Oci {
    pub(super) program: &'static str,
    pub(super) bundle: PathBuf,
    /// Where it notes what runs.
    pub(super) root: PathBuf,
}

pub(super) struct Sandbox {
    program: &'static str,
    root: PathBuf,
    id: String,
    pid_file: PathBuf,
}

impl Oci {
    pub(super) fn start(&self, world: &World, number: usize) -> Result<Sandbox, String> {
        let id = format!("stockade-bench-{}-{number}", std::process::id());
        let pid_file = world.path("pid");
        let log = world.path(&format!("{}.log", self.program));
        let file = std::fs::File::create(&log).map_err(|error| error.to_string())?;
        let sandbox = Sandbox {
            program: self.program,
            root: self.root.clone(),
            id: id.clone(),
            pid_file: pid_file.clone(),
        };
        let mut command = Command::new(self.program);
        command.arg("--root").arg(&self.root);
        command.args(["run", "--detach", "--preserve-fds"]);
        // Counted from the third on.
        command.arg((world.passed.number() - 2).to_string());
        command.arg("--pid-file").arg(&pid_file).arg("--bundle").arg(&self.bundle).arg(&id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let status = command.status().map_err(|error| format!("{}: {error}", self.program))?;
        if status.success() {
            return Ok(sandbox);
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Err(format!("it ends with {status}: {}", said.trim()))
    }
}

impl Started for Sandbox {
    fn pid(&mut self) -> u32 {
        let text = std::fs::read_to_string(&self.pid_file).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let mut command = Command::new(self.program);
        command.arg("--root").arg(&self.root).args(["delete", "--force", &self.id]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
