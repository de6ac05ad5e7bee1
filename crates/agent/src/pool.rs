//! A fixed set of threads for calls that block (files, forks).
//!
//! tokio's own blocking pool starts threads on demand, and fails when a user's fork bomb has used up
//! the process limit. These are started once and stay.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::http::ApiError;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for a thread; more are refused.
const QUEUE: usize = 256;

#[derive(Clone)]
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
}

/// A job that was begun.
pub(crate) struct Running<T> {
    answered: oneshot::Receiver<T>,
}

impl Pool {
    /// Starts `threads` threads, which live as long as the process. This one makes the first alone, and each the next:
    /// whoever waits for the agent's first answer does not wait for all of them.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel::<Job>(QUEUE);
        start_thread(threads, Arc::new(Mutex::new(receiver)))?;
        Ok(Self { jobs })
    }

    /// Leaves `job` to the pool without waiting for it. A full queue drops it.
    pub(crate) fn leave(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.try_send(Box::new(job));
    }

    /// Runs `job` on a thread of the pool. A full queue and a panic of the job are errors.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.begin(job)?.end().await
    }

    /// Has `job` run on a thread of the pool while the caller does something else. A full queue is an error.
    pub(crate) fn begin<T, F>(&self, job: F) -> Result<Running<T>, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let boxed: Job = Box::new(move || {
            // A caller that went away is no reason to fail: the work is done, nobody asks for it.
            let _ = answer.send(job());
        });
        self.jobs.try_send(boxed).map_err(|_| {
            ApiError::unavailable(format!("more than {QUEUE} calls wait for a thread; try again"))
        })?;
        Ok(Running { answered })
    }
}

impl<T> Running<T> {
    /// Waits for the job. Its panic is an error.
    pub(crate) async fn end(self) -> Result<T, ApiError> {
        self.answered.await.map_err(|_| ApiError::internal("the call failed inside the agent"))
    }
}

/// Starts one thread, which starts the `count - 1` after it.
fn start_thread(count: usize, receiver: Arc<Mutex<Receiver<Job>>>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("agent-pool".to_owned()).stack_size(1024 * 1024);
    let run = move || {
        if count > 1
            && let Err(error) = start_thread(count - 1, Arc::clone(&receiver))
        {
            // With fewer, long calls would keep short ones waiting. Nothing was begun yet that could be lost.
            let _ = writeln!(std::io::stderr(), "stockade-agent: no threads: {error}");
            std::process::exit(1);
        }
        serve(&receiver);
    };
    thread.spawn(run).map(drop)
}

fn serve(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = receiver.lock().recv();
        let Ok(job) = job else { return };
        // The panic is answered to the caller, whose channel is dropped with the job.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
