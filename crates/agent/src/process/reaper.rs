//! Who hears of the ends of processes.
//!
//! The children of the agent are keepers, one for each command (see [`super::keeper`]), and orphans nobody keeps. One
//! thread waits for all of them. A zombie is looked at first without being taken, then taken under the same lock under
//! which processes are started: so a child that ends at once is known by then, and nobody else's wait is stolen.
//!
//! How a command ended is said by its keeper, in a note that another thread reads. When somebody has killed the keeper,
//! the command is a child of the agent: then it is ended, and waited for as any child.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use super::family::Family;
use super::keeper::{self, NOTE_BYTES};
use super::tree;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Waits for the end of the process that `exited` tells of.
pub(crate) async fn ended(exited: &mut watch::Receiver<Option<Exit>>) -> Option<Exit> {
    let exit = exited.wait_for(Option::is_some).await;
    exit.ok().and_then(|exit| *exit)
}

impl Exit {
    /// The number a shell would put into `$?`.
    pub(crate) fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A command that has not ended.
struct Command {
    keeper: i32,
    exited: watch::Sender<Option<Exit>>,
}

/// A keeper that has not ended.
struct Keeper {
    command: i32,
    gone: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    commands: HashMap<i32, Command>,
    keepers: HashMap<i32, Keeper>,
}

/// Knows the commands of the agent that have not ended.
#[derive(Clone)]
pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

struct Shared {
    known: Mutex<Known>,
    started: Condvar,
    /// Where keepers write.
    notes: OwnedFd,
}

/// A command that was registered.
pub(super) struct Registered {
    pub(super) pid: Pid,
    pub(super) exited: watch::Receiver<Option<Exit>>,
    pub(super) family: Family,
}

impl Reaper {
    /// Makes the process the parent of its orphaned descendants and starts the waiting threads.
    pub(crate) fn start() -> io::Result<Self> {
        // Fails only on kernels before 3.4; without it orphans go to pid 1, which reaps them too.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        keeper::prepare()?;
        let (read, notes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { known: Mutex::default(), started: Condvar::new(), notes });
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024);
        let for_notes = Arc::clone(&shared);
        thread("agent-notes").spawn(move || read_notes(&read, &for_notes))?;
        let for_children = Arc::clone(&shared);
        thread("agent-reaper").spawn(move || wait_for_children(&for_children))?;
        Ok(Self { shared })
    }

    /// The descriptor that keepers write to.
    pub(super) fn notes(&self) -> i32 {
        self.shared.notes.as_raw_fd()
    }

    /// Runs `start`, which forks a keeper and returns its id, and registers it and its command before anybody can hear
    /// of their ends.
    pub(super) fn register(&self, start: impl FnOnce() -> io::Result<u32>) -> io::Result<Registered> {
        let mut known = self.shared.known.lock();
        let keeper = start()?;
        let keeper = i32::try_from(keeper).ok().and_then(Pid::from_raw);
        // Starts take turns, so the last is this one.
        let command = keeper::command_of_last_start().and_then(Pid::from_raw);
        let (Some(keeper), Some(pid)) = (keeper, command) else {
            return Err(io::Error::other("fork returned no process id"));
        };
        let (exit_sender, exited) = watch::channel(None);
        let (gone_sender, gone) = watch::channel(false);
        let (keeper_number, number) = (keeper.as_raw_nonzero().get(), pid.as_raw_nonzero().get());
        known.commands.insert(number, Command { keeper: keeper_number, exited: exit_sender });
        known.keepers.insert(keeper_number, Keeper { command: number, gone: gone_sender });
        self.shared.started.notify_one();
        Ok(Registered { pid, exited, family: Family::new(keeper, gone) })
    }

    /// Sends `signal` to a command that has not ended. A pid that was reaped is left alone: it may be another's by now.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) {
        let known = self.shared.known.lock();
        if known.commands.contains_key(&pid.as_raw_nonzero().get()) {
            // It can only have become a zombie meanwhile, which takes signals without effect.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn read_notes(notes: &OwnedFd, shared: &Shared) {
    loop {
        let mut bytes = [0; NOTE_BYTES];
        match rustix::io::read(notes, &mut bytes) {
            Ok(NOTE_BYTES) => {}
            Err(rustix::io::Errno::INTR) => continue,
            // Nobody can write any more, which is the end of the agent.
            _ => return,
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        let [keeper, command, code, status] = [0, 1, 2, 3].map(|at| i32::from_ne_bytes(numbers[at]));
        let exit = if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
        let mut known = shared.known.lock();
        if known.commands.get(&command).is_some_and(|known| known.keeper == keeper)
            && let Some(ended) = known.commands.remove(&command)
        {
            ended.exited.send_replace(Some(exit));
        }
    }
}

fn wait_for_children(shared: &Shared) {
    loop {
        match peek_zombie() {
            Some(pid) => {
                let mut known = shared.known.lock();
                if let Some(exit) = take_zombie(pid) {
                    child_ended(&mut known, pid, exit);
                }
            }
            None => {
                // No child at all: there will be one when we start one.
                let mut known = shared.known.lock();
                if known.keepers.is_empty() {
                    shared.started.wait(&mut known);
                }
            }
        }
    }
}

fn child_ended(known: &mut Known, pid: i32, exit: Exit) {
    if let Some(keeper) = known.keepers.remove(&pid) {
        if exit != Exit::Code(0) {
            end_without_keeper(known, pid, keeper.command);
        }
        keeper.gone.send_replace(true);
    } else if let Some(command) = known.commands.remove(&pid) {
        // Its keeper was killed.
        command.exited.send_replace(Some(exit));
    }
}

/// Somebody has killed a keeper. Its command, which cannot be told from others' orphans from now on, does not go on.
fn end_without_keeper(known: &Known, keeper: i32, command: i32) {
    let lives = known.commands.get(&command).is_some_and(|known| known.keeper == keeper);
    let own = i32::try_from(std::process::id()).ok();
    if lives && tree::stat(command).is_some_and(|stat| Some(stat.parent) == own) {
        for member in tree::below(tree::all(), command) {
            super::family::kill(&member);
        }
        if let Some(pid) = Pid::from_raw(command) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Waits until some child has ended and returns its pid, leaving the zombie. `None`: there are no children.
#[allow(unsafe_code)]
fn peek_zombie() -> Option<i32> {
    loop {
        // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call and is of the type the kernel writes.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            // SAFETY: waitid succeeded, so the SIGCHLD fields of the union are the ones set.
            return Some(unsafe { info.si_pid() });
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

#[allow(unsafe_code)]
fn take_zombie(pid: i32) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: `status` outlives the call; a wrong pid is an error, not undefined.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    if result != pid {
        return None;
    }
    Some(if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    })
}
