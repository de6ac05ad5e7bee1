//! The first process of a sandbox, from its birth to the execution of our own program.
//!
//! It was forked from a process with a single thread, so that it may allocate. What it does is the same for many
//! sandboxes; what it becomes is told to the program that it executes ([`super::become_sandbox`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::assembly::Assembly;
use super::failure::{At, Problem, StepFailure};
use super::handover::Handover;
use super::spec::executes_itself;
use super::step::SetupStep;
use super::wire::{self, Became};
use super::{become_sandbox, paths, sys};
use crate::rootfs::Stage;

/// What the launcher prepared for all sandboxes.
pub(super) struct Prepared {
    pub(super) stage: Stage,
    /// A copy of our own program.
    pub(super) program: OwnedFd,
    /// Another program that is to be the agent.
    pub(super) agent: Option<OwnedFd>,
    pub(super) nothing: OwnedFd,
}

/// The descriptors of one sandbox.
pub(super) struct ChildFds {
    /// To the server.
    pub(super) channel: OwnedFd,
    pub(super) join: Vec<OwnedFd>,
    pub(super) commands: Vec<OwnedFd>,
    /// To the launcher.
    pub(super) report: OwnedFd,
}

/// What the child tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// All steps are done but the execution.
    Prepared,
    /// A step failed.
    Failed(StepFailure),
}

/// Ends here, or executes.
pub(super) fn run(prepared: &Prepared, fds: ChildFds, steps: &[SetupStep]) -> ! {
    sys::default_signals();
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    // It is the launcher's connection, whose end the server must see.
    let _ = rustix::stdio::dup2_stdin(&prepared.nothing);
    let mut child = Child { prepared, fds, assembly: Assembly::new(prepared) };
    for step in steps {
        if let Err(problem) = child.perform(step) {
            report(&child.fds.report, &Report::Failed(problem.of(step)));
            exit(FAILED);
        }
    }
    child.execute();
    exit(FAILED)
}

/// What a sandbox's first process ends with when it becomes no agent.
pub(super) const FAILED: u8 = 125;

#[allow(unsafe_code)]
fn exit(code: u8) -> ! {
    // SAFETY: ends the process without running anything that belongs to the launcher.
    unsafe { libc::_exit(code.into()) }
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
            SetupStep::NewNamespaces => Ok(sys::unshare(
                libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP,
            )?),
            SetupStep::FreshProc => self.assembly.make_proc(),
            SetupStep::MakeUsers(users) => self.assembly.make_users(*users),
            SetupStep::OpenWritable(layer) => self.assembly.open_writable(layer),
            SetupStep::MakeOwnLayer => self.assembly.make_own_layer(),
            SetupStep::Overlay(overlay) => self.assembly.mount_overlay(overlay),
            SetupStep::Devices { shared_memory } => self.assembly.mount_devices(*shared_memory),
            SetupStep::MountSys(groups) => self.assembly.mount_sys(groups),
            SetupStep::MountProc => self.assembly.mount_proc(),
            _ => Err(super::failure::out_of_turn()),
        }
    }

    fn join(&mut self) -> Result<(), Problem> {
        for group in std::mem::take(&mut self.fds.join) {
            rustix::io::write(&group, b"0")?;
        }
        Ok(())
    }

    /// Executes our own program, which does the rest. Returns only if that fails.
    fn execute(&self) {
        let step = SetupStep::AwaitSandbox;
        let [reports, program, channel] = match self.leave() {
            Ok(copies) => copies,
            Err(problem) => return report(&self.fds.report, &Report::Failed(problem.of(&step))),
        };
        report(&reports, &Report::Prepared);
        let arguments = [become_sandbox::name(), become_sandbox::ARGUMENT.to_owned()];
        let failure = Problem::from(sys::execute(program.as_fd(), &arguments, &[])).of(&step);
        // The launcher was told that all is well; the server listens elsewhere.
        let _ = wire::send(channel.as_fd(), &Became::Failed(failure), &[]);
    }

    /// The program to execute as the agent, where one is to be executed.
    fn agent(&self) -> Option<BorrowedFd<'_>> {
        let own = executes_itself(self.assembly.map()).then_some(&self.prepared.program);
        self.prepared.agent.as_ref().or(own).map(AsFd::as_fd)
    }

    /// Leaves what was made to the program that is executed next.
    fn leave(&self) -> Result<[OwnedFd; 3], Problem> {
        let made = self.assembly.made()?;
        let (nothing, channel) = (self.prepared.nothing.as_fd(), self.fds.channel.as_fd());
        let handover = Handover {
            channel,
            proc: made.proc,
            users: made.users,
            of_root: made.of_root,
            own: made.own,
            root: made.root,
            nothing,
            agent: self.agent().unwrap_or(nothing),
            commands: self.fds.commands.iter().map(AsFd::as_fd).collect(),
        };
        Ok(handover.leave([self.fds.report.as_fd(), self.prepared.program.as_fd(), channel])?)
    }
}

/// Failures to tell are not told: the launcher sees the end of the process.
fn report(to: impl AsFd, report: &Report) {
    let Ok(mut bytes) = serde_json::to_vec(report) else { return };
    bytes.push(b'\n');
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to.as_fd(), rest)) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) => return,
        }
    }
}

/// The empty file that is every agent's standard input.
pub(super) fn nothing() -> Result<OwnedFd, Problem> {
    let path = Path::new("/dev/null");
    paths::open_file(path)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).at(path)
}
