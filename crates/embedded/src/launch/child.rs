//! The first process of a sandbox, from its birth to the moment it becomes the agent.
//!
//! It was forked from a process with a single thread, so that it may allocate. It tells the launcher through one
//! pipe, and is told to go on through another: when the launcher ends before that, so does it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::assembly::Assembly;
use super::failure::{At, Problem, StepFailure};
use super::step::SetupStep;
use super::{paths, sys, users};
use crate::confine::{capabilities, landlock, rlimits, seccomp};
use crate::rootfs::Stage;

/// What the launcher prepared for all sandboxes.
pub(super) struct Prepared {
    pub(super) stage: Stage,
    pub(super) program: OwnedFd,
    pub(super) filter: seccomp::Program,
    pub(super) limits: rlimits::Limits,
    pub(super) nothing: OwnedFd,
}

/// The descriptors of one sandbox.
pub(super) struct ChildFds {
    pub(super) netns: OwnedFd,
    pub(super) log: OwnedFd,
    pub(super) join: Vec<OwnedFd>,
    pub(super) commands: Vec<OwnedFd>,
    /// To the agent: write one byte when it listens.
    pub(super) ready: OwnedFd,
    /// To the launcher.
    pub(super) report: OwnedFd,
    /// From the launcher: one byte to go on.
    pub(super) go: OwnedFd,
}

/// What the child tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Everything is done but the execution.
    Prepared { messages: Vec<String> },
    /// A step failed.
    Failed(StepFailure),
}

/// Ends here, whether it becomes the agent or not.
pub(super) fn run(prepared: &Prepared, fds: ChildFds, steps: &[SetupStep]) -> ! {
    sys::default_signals();
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let mut child = Child { prepared, fds, assembly: Assembly::new(prepared) };
    for step in steps {
        if let Err(problem) = child.perform(step) {
            child.report(&Report::Failed(problem.of(step)));
            exit(FAILED);
        }
    }
    exit(FAILED)
}

const FAILED: i32 = 125;

#[allow(unsafe_code)]
fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running anything that belongs to the launcher.
    unsafe { libc::_exit(code) }
}

struct Child<'a> {
    prepared: &'a Prepared,
    fds: ChildFds,
    assembly: Assembly<'a>,
}

impl Child<'_> {
    fn perform(&mut self, step: &SetupStep) -> Result<(), Problem> {
        match step {
            SetupStep::JoinControlGroups => self.join(),
            SetupStep::EnterNetwork => Ok(sys::enter_namespace(self.fds.netns.as_fd(), libc::CLONE_NEWNET)?),
            SetupStep::NewNamespaces => Ok(sys::unshare(
                libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP,
            )?),
            SetupStep::HostName(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
            SetupStep::FreshProc => self.assembly.make_proc(),
            SetupStep::MakeUsers(users) => self.assembly.make_users(*users),
            SetupStep::OpenWritable(layer) => self.assembly.open_writable(layer),
            SetupStep::MakeOwnLayer(layer) => self.assembly.make_own_layer(layer),
            SetupStep::Overlay(overlay) => self.assembly.mount_overlay(overlay),
            SetupStep::Devices => self.assembly.mount_devices(),
            SetupStep::MountSys => self.assembly.mount_sys(),
            SetupStep::MountProc => self.assembly.mount_proc(),
            SetupStep::Bind(bind) => self.assembly.bind(bind),
            SetupStep::EnterRoot => self.assembly.enter_root(),
            SetupStep::LimitProcesses => self.limit(),
            SetupStep::BecomeUser(map) => Ok(users::become_user(self.assembly.users()?, *map)?),
            SetupStep::LimitUser(most) => Ok(rlimits::limit_processes(*most)?),
            SetupStep::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            SetupStep::DropCapabilities => Ok(capabilities::drop_all()?),
            SetupStep::Landlock(abi) => Ok(landlock::restrict(*abi)?),
            SetupStep::FilterSystemCalls => self.standard_descriptors_then_filter(),
            SetupStep::Execute { arguments, environment } => self.execute(arguments, environment),
        }
    }

    fn join(&mut self) -> Result<(), Problem> {
        for group in std::mem::take(&mut self.fds.join) {
            rustix::io::write(&group, b"0")?;
        }
        Ok(())
    }

    fn limit(&self) -> Result<(), Problem> {
        set_oom_score();
        rustix::process::setsid()
            .or_else(|error| if error == Errno::PERM { Ok(rustix::process::getpid()) } else { Err(error) })?;
        Ok(self.prepared.limits.apply()?)
    }

    /// Everything that needs a call the filter may refuse, then the filter.
    fn standard_descriptors_then_filter(&mut self) -> Result<(), Problem> {
        rustix::stdio::dup2_stdin(&self.prepared.nothing)?;
        rustix::stdio::dup2_stdout(&self.fds.log)?;
        rustix::stdio::dup2_stderr(&self.fds.log)?;
        sys::close_all_on_execution()?;
        Ok(self.prepared.filter.apply()?)
    }

    /// Says that all is done, waits to be told to go on, and becomes the agent.
    fn execute(&mut self, arguments: &[String], environment: &[String]) -> Result<(), Problem> {
        let mut all = vec![crate::role::AGENT.to_owned()];
        all.extend_from_slice(arguments);
        all.push(format!("--ready-fd={}", keep(&self.fds.ready)?));
        for group in &self.fds.commands {
            all.push(format!("--command-cgroup-fd={}", keep(group)?));
        }
        let arguments = strings(all.iter().cloned())?;
        let environment = strings(environment.iter().cloned())?;
        let messages = std::mem::take(&mut self.assembly.messages);
        self.report(&Report::Prepared { messages });
        let mut byte = [0];
        if rustix::io::retry_on_intr(|| rustix::io::read(&self.fds.go, &mut byte))? == 0 {
            // The launcher is gone, and nobody knows of this sandbox.
            exit(FAILED);
        }
        let error = sys::execute(self.prepared.program.as_fd(), &arguments, &environment);
        // The launcher has said that the sandbox is there; its log has to tell.
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            format!("the agent cannot be executed: {error}\n").as_bytes(),
        );
        exit(FAILED)
    }

    /// Failures to tell are not told: the launcher sees the end of the process.
    fn report(&self, report: &Report) {
        let Ok(mut bytes) = serde_json::to_vec(report) else { return };
        bytes.push(b'\n');
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.fds.report, rest)) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(_) => return,
            }
        }
    }
}

/// Whoever started the server may have it spared when memory is short; a sandbox is not, and its commands, which set a
/// score for themselves, even less.
///
/// A process may raise its score, and lower it again to what somebody with the right to set any last gave it. We may
/// have no such right. Then commands can go down to what was inherited, and the agent may not be above that: it would
/// be the first to end.
fn set_oom_score() {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let set = |score: &[u8]| {
        rustix::fs::open("/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty())
            .and_then(|file| rustix::io::write(&file, score))
    };
    // Refused without the right, unless it was inherited, and then the next brings it back.
    let any = set(b"-1000").is_ok();
    // What is inherited and higher cannot be lowered: it is what commands have at least, too.
    let _ = set(if any { b"100" } else { b"0" });
}

/// Keeps a descriptor open in the agent.
fn keep(fd: &OwnedFd) -> Result<i32, Errno> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(fd.as_raw_fd())
}

fn strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, Problem> {
    texts.map(|text| CString::new(text).map_err(|_| Problem::from(Errno::INVAL))).collect()
}

/// The empty file that is every agent's standard input.
pub(super) fn nothing() -> Result<OwnedFd, Problem> {
    let path = Path::new("/dev/null");
    paths::open_file(path)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).at(path)
}
