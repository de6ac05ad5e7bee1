//! Somebody at a shell, with a directory of state whose name has a blank in it.

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{ORDINARY, Ports, RunBy, one_at_a_time, program_path};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Somebody at a shell.
pub(super) struct Person {
    run_by: RunBy,
    state: PathBuf,
    ports: Ports,
    program: String,
    _directory: tempfile::TempDir,
}

/// What a command line did.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a test as root and as an ordinary user, or only as the latter when that is what we are.
pub(super) fn as_each_person(test: impl Fn(&Person)) {
    let is_root = rustix::process::geteuid().is_root();
    let users: &[RunBy] = if is_root { &[RunBy::Root, RunBy::Ordinary] } else { &[RunBy::Ordinary] };
    for run_by in users {
        let _turn = one_at_a_time();
        let person = Person::new(*run_by);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&person)));
        // Whatever the test left; what it ended before is no error.
        if person.state.exists() {
            person.ends_with("$S down --purge --yes $D");
        }
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            panic!("as {run_by:?}: {text}");
        }
    }
}

impl Person {
    fn new(run_by: RunBy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() && run_by == RunBy::Ordinary {
            chown(directory.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
        let state = directory.path().join("state of it");
        let program = program_path().to_str().unwrap().to_owned();
        Self { run_by, state, ports: Ports::free(40), program, _directory: directory }
    }

    pub(super) fn is_root(&self) -> bool {
        self.run_by == RunBy::Root
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// A shell of this person; `$S` is the program and `$D` the options with the state directory.
    fn shell(&self, words: &[&str]) -> Command {
        let ordinary = self.run_by == RunBy::Ordinary && rustix::process::geteuid().is_root();
        let mut command = if ordinary {
            let user = ORDINARY.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).args(words);
            command
        } else {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.state.parent().unwrap()).env("SHELL", "/bin/bash");
        command.env(
            "SANDBOX_PORT_RANGE",
            format!("{}-{}", self.ports.api + 1, self.ports.api + self.ports.sandboxes),
        );
        command.env("SANDBOX_MAX", self.ports.sandboxes.to_string());
        command
    }

    /// The line with the program and the options filled in.
    fn filled(&self, line: &str) -> String {
        line.replace("$S", &self.program).replace("$D", &format!("--state-dir '{}'", self.state.display()))
    }

    /// Runs a line: its exit status, and what it said.
    pub(super) fn ends_with(&self, line: &str) -> (Option<i32>, Said) {
        let line = self.filled(line);
        let mut command = self.shell(&["timeout", "60", "bash", "-o", "pipefail", "-c", &line]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), Said { stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Runs a line that succeeds.
    pub(super) fn does(&self, line: &str) -> Said {
        let (code, said) = self.ends_with(line);
        assert_eq!(code, Some(0), "as {:?}: {line}: {said:?}", self.run_by);
        said
    }

    /// Runs a line that fails.
    pub(super) fn fails(&self, line: &str) -> Said {
        let (code, said) = self.ends_with(line);
        assert!(code.is_some_and(|code| code != 0 && code != 124), "as {:?}: {line}: {said:?}", self.run_by);
        said
    }

    /// Runs a line on a terminal of its own.
    pub(super) fn on_terminal(&self, line: &str) -> OnTerminal {
        let line = self.filled(line);
        let mut command = self.shell(&["script", "-qfec", &line, "/dev/null"]);
        OnTerminal::of(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Where this person's server listens.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.api)
    }

    /// A server on a terminal.
    pub(super) fn up(&self) -> OnTerminal {
        self.on_terminal(&format!("$S up --listen {} $D", self.address()))
    }

    /// A server by a line that was printed, when it serves.
    pub(super) fn up_by(&self, line: &str) -> OnTerminal {
        let mut up = self.on_terminal(line);
        up.until("and this ends them:");
        up
    }
}

/// A process on a terminal. Dropping it ends the terminal.
pub(super) struct OnTerminal {
    child: Child,
    stdin: ChildStdin,
    pieces: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl OnTerminal {
    fn of(mut child: Child) -> Self {
        let (sender, pieces) = mpsc::channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, pieces, seen: String::new() }
    }

    /// Waits until this text has come; all that came so far.
    pub(super) fn until(&mut self, expect: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while !self.seen.contains(expect) {
            let left = end.saturating_duration_since(Instant::now());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("{expect:?} does not come ({error}): {:?}", self.seen),
            }
        }
        self.seen.clone()
    }

    /// Types.
    pub(super) fn types(&mut self, keys: &str) {
        self.stdin.write_all(keys.as_bytes()).unwrap();
    }

    /// Presses Ctrl-C.
    pub(super) fn interrupt(&mut self) {
        self.types("\u{3}");
    }

    /// Waits for its end; all that came.
    pub(super) fn until_end(&mut self) -> String {
        let end = Instant::now() + DEADLINE;
        while let Ok(piece) = self.pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        assert!(Instant::now() < end, "it does not end: {:?}", self.seen);
        self.child.wait().unwrap();
        self.seen.clone()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // What hangs on the terminal hears of its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
