//! One thread waits for every child, ours and those we inherited as the parent of orphans.
//!
//! A zombie is looked at first without being taken, then taken under the same lock under which
//! processes are started: so a child that ends at once is known by then, and nobody else's wait is stolen.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

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

type Watchers = HashMap<i32, watch::Sender<Option<Exit>>>;

/// Knows the children of the agent that have not ended.
#[derive(Clone)]
pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

struct Shared {
    children: Mutex<Watchers>,
    started: Condvar,
}

impl Reaper {
    /// Makes the process the parent of its orphaned descendants and starts the waiting thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        // Fails only on kernels before 3.4; without it orphans go to pid 1, which reaps them too.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let shared = Arc::new(Shared { children: Mutex::new(HashMap::new()), started: Condvar::new() });
        let reaper = Self { shared: Arc::clone(&shared) };
        std::thread::Builder::new()
            .name("agent-reaper".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || wait_for_children(&shared))?;
        Ok(reaper)
    }

    /// Runs `start`, which forks, and registers the child it returns before anybody can reap it.
    pub(crate) fn register<E>(
        &self,
        start: impl FnOnce() -> Result<Pid, E>,
    ) -> Result<(Pid, watch::Receiver<Option<Exit>>), E> {
        let mut children = self.shared.children.lock();
        let pid = start()?;
        let (sender, receiver) = watch::channel(None);
        children.insert(pid.as_raw_nonzero().get(), sender);
        self.shared.started.notify_one();
        Ok((pid, receiver))
    }

    /// Sends `signal` to a child that has not ended. A pid that was reaped is left alone: it may be another's by now.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) {
        let children = self.shared.children.lock();
        if children.contains_key(&pid.as_raw_nonzero().get()) {
            // It can only have become a zombie meanwhile, which takes signals without effect.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn wait_for_children(shared: &Shared) {
    loop {
        match peek_zombie() {
            Some(pid) => {
                let mut children = shared.children.lock();
                if let Some(exit) = take_zombie(pid)
                    && let Some(watcher) = children.remove(&pid)
                {
                    watcher.send_replace(Some(exit));
                }
            }
            None => {
                // No child at all: there will be one when we start one.
                let mut children = shared.children.lock();
                if children.is_empty() {
                    shared.started.wait(&mut children);
                }
            }
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
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
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
