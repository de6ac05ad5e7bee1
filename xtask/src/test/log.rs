//! The log of one stage: all that its programs print, in the order they print it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::suite::Flaky;
use crate::wait::{Outcome, until};

/// Between two looks at a program that takes seconds to minutes.
const INTERVAL: Duration = Duration::from_millis(20);

/// A file that programs write to.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    flaky: Vec<Flaky>,
}

impl Log {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file, flaky: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tests of the stage that failed and passed alone.
    pub(super) fn flaky(&self) -> &[Flaky] {
        &self.flaky
    }

    pub(super) fn add_flaky(&mut self, flaky: Flaky) {
        self.flaky.push(flaky);
    }

    /// All of it so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// A line of our own.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Runs a program to its end, which has to be a success, or until its time is up: then it is ended with
    /// all that it started.
    pub(super) fn run(&mut self, mut command: Command, limit: Duration) -> Result<()> {
        let line = line_of(&command);
        self.say(&format!("$ {line}"))?;
        let copy = || self.file.try_clone().context("cannot duplicate a descriptor");
        // A group of its own, so that it can be ended with its children.
        command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run `{line}`; is it installed?"))?;
        let ended = until(limit, INTERVAL, || {
            let status = child.try_wait().context("cannot wait for a program")?;
            Ok(status.ok_or_else(|| "it runs".to_owned()))
        })?;
        let Outcome::Ready(status) = ended else {
            end_group(&mut child)?;
            bail!("`{line}` did not end within {} s", limit.as_secs());
        };
        ensure!(status.success(), "`{line}` failed with {status}");
        Ok(())
    }
}

fn line_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    format!("{program} {}", words.join(" "))
}

fn end_group(child: &mut Child) -> Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the program has no id")?;
    kill_process_group(group, Signal::KILL).context("cannot end the program")?;
    child.wait().context("cannot wait for a program")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 600 & wait"]);
        let error = log.run(command, Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("did not end within"), "{error}");
        assert!(log.text().contains("begun"), "{}", log.text());
    }

    #[test]
    fn a_failure_names_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::create(directory.path().join("log")).unwrap();
        let error = log.run(Command::new("false"), Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("false"), "{error}");
    }
}
