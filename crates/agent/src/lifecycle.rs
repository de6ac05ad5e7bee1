//! Starting and ending the agent.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::app::App;
use crate::extras::hooks;
use crate::options::Options;
use crate::process::{Reaper, inherited, spawn, tree};
use crate::{memory, server};

/// Threads that serve calls; a sandbox rarely has more cores.
const WORKERS: usize = 2;
const STACK: usize = 1024 * 1024;
/// How often sessions nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How long after the start the agent counts as idle for the first time.
const AFTER_START: Duration = Duration::from_secs(2);
/// How often the end of the last processes is checked for while the agent ends.
const END_POLL: Duration = Duration::from_millis(20);

/// Runs the agent until it is told to end by SIGTERM or SIGINT, and ends everything it started.
///
/// It is meant to be a process of its own: it waits for every child there is, and as pid 1 it does
/// what an init process has to. Call it before any other thread is started.
///
/// # Errors
/// The address cannot be listened on, or the system gives no threads.
pub fn run(options: &Options) -> io::Result<()> {
    inherited::keep_from_commands()?;
    inherited::set_command_groups(&options.command_cgroup_fds)?;
    spawn::raise_open_files();
    spawn::close_inherited_on_exec();
    // Before anything else that takes time: connections wait in the kernel's queue from here on.
    let listener = server::bind(options.listen)?;
    let front = Builder::new_current_thread().enable_all().build()?;
    // Registered before the first request, so that no signal ends the agent without its rites.
    let (mut terminate, mut interrupt) = {
        let _runtime = front.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    // Not earlier: the kernel drops a signal that process 1 has no handler for. Not later: whoever waits for it can
    // connect while the rest is made.
    inherited::announce(options.ready_fd)?;
    let reaper = Reaper::start()?;
    let app = App::new(options, reaper)?;
    let workers = worker_runtime()?;
    let served = front.block_on(async {
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        workers.spawn(sweep(app.clone()));
        tokio::pin!(shutdown);
        if options.hooks.come_first() {
            // A hook that panics is as one that fails.
            tokio::select! {
                _ = workers.spawn(hooks::run_before(app.clone(), options.hooks.clone())) => {}
                () = &mut shutdown => return Ok(()),
            }
        }
        workers.spawn(hooks::run_after(app.clone(), options.hooks.clone()));
        server::serve(listener, app.clone(), workers.handle().clone(), shutdown).await
    });
    workers.block_on(end(app, options.grace));
    workers.shutdown_timeout(Duration::from_millis(100));
    served
}

fn worker_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(1)
        .thread_stack_size(STACK)
        .thread_name("agent-worker")
        .enable_all()
        .build()
}

async fn sweep(app: App) {
    // What only the start needs. Not at once: the first calls follow on its heels, and would bring it back.
    tokio::time::sleep(AFTER_START).await;
    memory::let_go_of_program();
    loop {
        tokio::time::sleep(SWEEP).await;
        app.shells().sweep().await;
        app.codes().sweep();
        memory::let_go_of_program();
    }
}

/// Asks every process to end, waits within `grace`, and ends the rest.
async fn end(app: App, grace: Duration) {
    hooks::run_all(&app, grace).await;
    let deadline = Instant::now() + grace;
    signal_everything(Signal::TERM);
    signal_everything(Signal::CONT);
    // Interactive shells do not end on SIGTERM, but on a hang-up.
    app.shells().remove_all().await;
    app.bashes().remove_all().await;
    while Instant::now() < deadline && !tree::descendants().is_empty() {
        tokio::time::sleep(END_POLL).await;
    }
    signal_everything(Signal::KILL);
}

/// As pid 1: every process of the sandbox. Otherwise: everything started by the agent.
fn signal_everything(which: Signal) {
    if std::process::id() == 1 {
        tree::signal_where(which, |_| true);
        return;
    }
    for pid in tree::descendants() {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, which);
        }
    }
}
