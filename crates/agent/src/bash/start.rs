//! How the process of a command is started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SeekFrom};

use crate::environment;
use crate::process::{Launch, Started};
use crate::shell::Surroundings;

/// Longer texts do not fit into one argument (the kernel takes 128 KiB) and are read by bash from a descriptor.
const ARGUMENT: usize = 120_000;
const SCRIPT_FD: i32 = 100;
const FROM_SCRIPT: &str =
    "IFS= read -r -d '' BASH_EXECUTION_STRING <&100; exec 100<&-; eval \"$BASH_EXECUTION_STRING\"";

/// Our ends, which do not block.
pub(super) struct Pipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// `text`, after the script at `snapshot` was sourced.
pub(super) fn full_text(text: &str, snapshot: Option<&Path>) -> String {
    match snapshot {
        Some(path) => format!(". '{}'\n{text}", path.to_string_lossy().replace('\'', r"'\''")),
        None => text.to_owned(),
    }
}

/// Starts bash with the script. Blocks for a fork: call it on the pool.
pub(super) fn launch(
    script: &str,
    directory: &Path,
    variables: &[(String, String)],
    surroundings: &Surroundings,
) -> io::Result<(Started, Pipes)> {
    let (stdin_read, stdin) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (stdout, stdout_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (stderr, stderr_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    for fd in [&stdin, &stdout, &stderr] {
        rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::NONBLOCK)?;
    }
    let mut command = Command::new(&surroundings.bash);
    std::os::unix::process::CommandExt::arg0(&mut command, "bash");
    command.arg("-c").current_dir(directory).env_clear();
    command.envs(surroundings.environment.iter().map(|(key, value)| (key, value)));
    command.envs(variables.iter().map(|(key, value)| (key, value)));
    command
        .stdin(Stdio::from(stdin_read))
        .stdout(Stdio::from(stdout_write))
        .stderr(Stdio::from(stderr_write));
    let script = &*format!("{}{script}", environment::prelude(variables));
    let mut pass = Vec::new();
    if script.len() <= ARGUMENT {
        command.arg(script);
    } else {
        let text = rustix::fs::memfd_create("stockade-script", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(text);
        io::Write::write_all(&mut file, script.as_bytes())?;
        rustix::fs::seek(&file, SeekFrom::Start(0))?;
        command.arg(FROM_SCRIPT);
        pass.push((OwnedFd::from(file), SCRIPT_FD));
    }
    let mut launch = Launch::new(command);
    launch.pass = pass;
    Ok((launch.start(&surroundings.reaper)?, Pipes { stdin, stdout, stderr }))
}
