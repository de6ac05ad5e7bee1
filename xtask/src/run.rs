//! Runs other programs, and says what was run and what it printed when that fails.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the message holds the command line, the
/// status and the last lines of its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{line}`; is it installed?"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed with {}: {}", output.status, tail(stderr.trim(), 20));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command from one list: program first.
pub fn command<S: AsRef<OsStr>>(line: &[S]) -> Command {
    let (program, arguments) =
        line.split_first().map_or((OsStr::new(""), line), |(first, rest)| (first.as_ref(), rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The first match in `$PATH` and in the directories of a system administrator, which an ordinary
/// user's `$PATH` lacks on Debian.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin", "/usr/lib/go/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The last `count` lines.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn display(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_command_status_and_what_was_printed() {
        let error = output(&mut command(&["sh", "-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains('3') && error.contains("broken"), "{error}");
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
