//! The second half of a launch. Our own program, as the first process of a sandbox that was put together ahead, waits
//! for what it is to be, does what is left to do, gives up its rights, and becomes the agent.
//!
//! It has a single thread until then. When the server that it waits for goes away, it ends.

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::child::FAILED;
use super::failure::{At, Problem};
use super::handover::{self, Handover};
use super::mounts::{self, NO_MAPPING};
use super::spec::{Bind, Missing, UserMap};
use super::step::{OwnLayer, SetupStep};
use super::users::{self, Extent, ROOT};
use super::wire::{self, Became, Become, MOST_BYTES};
use super::{paths, sys};
use crate::confine::{capabilities, landlock, rlimits, seccomp};
use crate::rootfs::FOR_EVERYBODY;

/// By this the program knows that it is to wait.
pub(crate) const ARGUMENT: &CStr = c"await-sandbox";

/// The program's name.
pub(super) fn name() -> CString {
    CString::new(crate::role::AGENT).unwrap_or_default()
}

/// Waits, and becomes a sandbox's agent. Call it before any thread is started.
pub(crate) fn run() -> ExitCode {
    let waited = Handover::take().and_then(wait);
    match waited {
        Ok(Some(sandbox)) => sandbox.complete(),
        // Nobody wants one any more.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("stockade-agent: this is started by the launcher alone: {error}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            FAILED.into()
        }
    }
}

/// The sandbox that this process is to become.
struct Coming {
    made: Handover<OwnedFd>,
    users: UserMap,
    execute: bool,
    steps: Vec<SetupStep>,
    netns: OwnedFd,
    log: OwnedFd,
    ready: OwnedFd,
    filter: seccomp::Program,
    /// User namespaces for directories of these owners.
    owners: Vec<((u32, u32), OwnedFd)>,
    /// What the answer should say.
    messages: Vec<String>,
}

fn wait(made: Handover<OwnedFd>) -> Result<Option<Coming>, Errno> {
    // While there is time. Nothing is looked up in the root: what the machine gets meanwhile must be seen.
    let filter = seccomp::program();
    let mut buffer = vec![0; MOST_BYTES];
    let Some((asked, fds)) = wire::receive::<Become>(made.channel.as_fd(), &mut buffer)? else {
        return Ok(None);
    };
    let [netns, log, ready] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| Errno::BADMSG)?;
    let Become { users, execute, steps } = asked;
    let (owners, messages) = (Vec::new(), Vec::new());
    Ok(Some(Coming { made, users, execute, steps, netns, log, ready, filter, owners, messages }))
}

impl Coming {
    fn complete(self) -> ExitCode {
        // Its descriptors are closed by their numbers, and a second time is an error.
        let mut coming = ManuallyDrop::new(self);
        for step in std::mem::take(&mut coming.steps) {
            let problem = match step {
                SetupStep::Execute { arguments, environment } => {
                    match coming.become_agent(arguments, &environment) {
                        Ok(code) => return code,
                        // The server was told that all is well; the sandbox's log has to tell.
                        Err(problem) => problem.of(&"become the agent"),
                    }
                }
                step => match coming.perform(&step) {
                    Ok(()) => continue,
                    Err(problem) => problem.of(&step),
                },
            };
            let _ = wire::send(coming.made.channel.as_fd(), &Became::Failed(problem), &[]);
            break;
        }
        FAILED.into()
    }

    fn perform(&mut self, step: &SetupStep) -> Result<(), Problem> {
        match step {
            SetupStep::EnterNetwork => Ok(sys::enter_namespace(self.netns.as_fd(), libc::CLONE_NEWNET)?),
            SetupStep::HostName(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
            SetupStep::FillOwnLayer(layer) => self.fill_own_layer(layer),
            SetupStep::Bind(bind) => self.bind(bind),
            SetupStep::OnlyRead => Ok(sys::set_mount(self.made.root.as_fd(), sys::READ_ONLY, None)?),
            SetupStep::EnterRoot => self.enter_root(),
            SetupStep::LimitProcesses => limit(),
            SetupStep::BecomeUser(map) => Ok(users::become_user(&self.made.users, *map)?),
            SetupStep::LimitUser(most) => Ok(rlimits::limit_processes(*most)?),
            SetupStep::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            SetupStep::DropCapabilities => Ok(capabilities::drop_all()?),
            SetupStep::Landlock(abi) => Ok(landlock::restrict(*abi)?),
            SetupStep::FilterSystemCalls => self.standard_descriptors_then_filter(),
            _ => Err(super::failure::out_of_turn()),
        }
    }

    fn fill_own_layer(&self, layer: &OwnLayer) -> Result<(), Problem> {
        // Nothing of it was looked up yet in the root, which shows what lies there when it is.
        let (own, owner) = (&self.made.own, self.users.owner());
        for directory in &layer.directories {
            paths::make_all_owned(own.as_fd(), directory, owner).at(directory)?;
        }
        for name in FOR_EVERYBODY {
            // This layer's modes win over those of the layers below.
            if let Ok(directory) =
                rustix::fs::openat(own, *name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            {
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o1777)).at(name)?;
            }
        }
        layer
            .files
            .iter()
            .try_for_each(|(path, content)| write_owned(own, path, content.as_bytes(), owner).at(path))
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), Problem> {
        let source = bind.base.join(&bind.below);
        let base = paths::open(&bind.base)?;
        let opened = match bind.missing {
            Missing::Create => paths::make_below(base.as_fd(), &bind.below),
            Missing::Refuse | Missing::Empty => paths::open_below(base.as_fd(), &bind.below).at(&source),
        };
        let mount = match opened {
            Ok(opened) => self.shown(&opened, bind).at(&source)?,
            Err(problem) if problem.errno == Errno::NOENT && bind.missing == Missing::Empty => {
                self.messages.push(format!(
                    "{} is not there: {} is empty",
                    source.display(),
                    bind.target.display()
                ));
                let flags = mounts::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
                mounts::make("tmpfs", &[("mode", Some("0755")), ("size", Some("4k"))], flags)?
            }
            Err(problem) => return Err(Problem { path: Some(source), ..problem }),
        };
        let place = paths::make_below(self.made.root.as_fd(), &bind.target)
            .map_err(|problem| Problem { path: Some(bind.target.clone()), ..problem })?;
        mounts::attach(mount.as_fd(), place.as_fd()).at(&bind.target)
    }

    /// A mount of an opened directory with the owner it has inside.
    fn shown(&mut self, opened: &OwnedFd, bind: &Bind) -> Result<OwnedFd, Problem> {
        let mount = mounts::copy(opened.as_fd(), true)?;
        let mut set = sys::NO_SETUID | sys::NO_DEVICES;
        if bind.read_only {
            set |= sys::READ_ONLY;
        }
        let owner = rustix::fs::fstat(opened)?;
        let users = self.owners_of(owner.st_uid, owner.st_gid)?;
        sys::set_mount(mount.as_fd(), set, users.map(OwnedFd::as_fd)).map_err(|errno| {
            let problem = Problem::from(errno);
            if errno == Errno::INVAL { problem.hint(NO_MAPPING) } else { problem }
        })?;
        Ok(mount)
    }

    /// A user namespace in which files of this owner belong to the sandbox's user.
    fn owners_of(&mut self, user: u32, group: u32) -> Result<Option<&OwnedFd>, Problem> {
        let UserMap::Range { first } = self.users else { return Ok(None) };
        if (user, group) == (UserMap::USER, UserMap::USER) {
            return Ok(Some(&self.made.users));
        }
        if (user, group) == (ROOT, ROOT) {
            return Ok(Some(&self.made.of_root));
        }
        let known = self.owners.iter().position(|(owner, _)| *owner == (user, group));
        let at = if let Some(at) = known {
            at
        } else {
            let [users, groups]: [Vec<Extent>; 2] = [user, group].map(|id| users::owner_map(first, id));
            let made = users::make(self.made.proc.as_fd(), self.users, &users, &groups)?;
            self.owners.push(((user, group), made));
            self.owners.len() - 1
        };
        Ok(self.owners.get(at).map(|(_, namespace)| namespace))
    }

    fn enter_root(&mut self) -> Result<(), Problem> {
        rustix::process::fchdir(&self.made.root)?;
        // The old root lands below the new one's own directory and is taken away from there.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }

    /// Everything that needs a call the filter may refuse, then the filter.
    fn standard_descriptors_then_filter(&mut self) -> Result<(), Problem> {
        rustix::stdio::dup2_stdin(&self.made.nothing)?;
        rustix::stdio::dup2_stdout(&self.log)?;
        rustix::stdio::dup2_stderr(&self.log)?;
        sys::close_all_on_execution()?;
        Ok(self.filter.apply()?)
    }

    /// Says that all is done, and becomes the agent. Returns when that has ended.
    fn become_agent(
        &mut self,
        mut arguments: Vec<String>,
        environment: &[String],
    ) -> Result<ExitCode, Problem> {
        arguments.push(format!("--ready-fd={}", keep(&self.ready)?));
        for group in &self.made.commands {
            arguments.push(format!("--command-cgroup-fd={}", keep(group)?));
        }
        let messages = std::mem::take(&mut self.messages);
        wire::send(self.made.channel.as_fd(), &Became::Sandbox { messages }, &[])?;
        if self.execute {
            let name = std::iter::once(crate::role::AGENT.to_owned());
            let arguments = strings(name.chain(arguments))?;
            let environment = strings(environment.iter().cloned())?;
            return Err(sys::execute(self.made.agent.as_fd(), &arguments, &environment).into());
        }
        let kept: Vec<&OwnedFd> = std::iter::once(&self.ready).chain(&self.made.commands).collect();
        handover::close_all_but(&kept)?;
        set_environment(environment);
        Ok(stockade_agent::run_with(arguments))
    }
}

/// As if the program had been executed with it.
#[allow(unsafe_code, clippy::disallowed_methods)]
fn set_environment(environment: &[String]) {
    for (name, value) in environment.iter().filter_map(|variable| variable.split_once('=')) {
        // SAFETY: this process has a single thread.
        unsafe { std::env::set_var(name, value) };
    }
}

fn limit() -> Result<(), Problem> {
    set_oom_score();
    rustix::process::setsid()
        .or_else(|error| if error == Errno::PERM { Ok(rustix::process::getpid()) } else { Err(error) })?;
    Ok(rlimits::limits().apply()?)
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

fn write_owned(
    directory: &OwnedFd,
    path: &Path,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let parent = paths::make_all_owned(directory.as_fd(), parent, owner)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, content)?;
    owner.map_or(Ok(()), |(user, group)| {
        rustix::fs::fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    })
}
