//! One shell session: a bash that is started when needed, runs one command at a time, and keeps its state between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::ending::Spared;
use super::state::{
    ConsoleRecord, Ending, EndingSteps, Execution, History, Order, Question, SharedExecution, Status, Watch,
};
use super::surroundings::Surroundings;
use super::terminal::{self, BashSpec, Terminal};
use super::{driver, leftover};
use crate::http::ApiError;
use crate::kills::Verdict;
use crate::pool::Pool;
use crate::process::{Family, Reaper};

/// Commands that may wait for their turn in one session.
const QUEUE: usize = 16;
/// How long a command may print nothing before its caller is told, unless told otherwise.
pub(crate) const NO_CHANGE: Duration = Duration::from_secs(120);
/// Time between asking the processes of a closed session to end and ending them.
const CLOSE_GRACE: Duration = Duration::from_millis(300);

pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) created: SystemTime,
    /// Made by an `exec` that named no session: the first to go when space is needed.
    pub(crate) automatic: bool,
    surroundings: Arc<Surroundings>,
    core: Mutex<Core>,
    /// Changes whenever the status of a command does.
    changed: watch::Sender<u64>,
    /// Changes whenever a command prints, or its status changes.
    printed: watch::Sender<u64>,
    /// Wakes the driver when a deadline was set or brought forward.
    poke: Notify,
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    closed: AtomicBool,
}

struct Core {
    terminal: Option<Arc<Terminal>>,
    /// Of this bash and those before it, as long as something of them runs.
    families: Vec<Family>,
    directory: PathBuf,
    no_change: Option<Duration>,
    history: History,
    last_number: u64,
    last_used: SystemTime,
}

/// What a caller who waits for the end of a command is not told before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Through {
    /// That it prints nothing.
    pub(crate) silence: bool,
    /// That it waits for input.
    pub(crate) questions: bool,
}

/// What a session shows of itself.
pub(crate) struct View {
    pub(crate) status: Status,
    pub(crate) command: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) console: Vec<ConsoleRecord>,
    /// The newest command waits for input.
    pub(crate) is_asking: bool,
    /// What is said of the end of the newest command when memory was short.
    pub(crate) verdict: Option<Verdict>,
}

impl Session {
    pub(crate) fn new(
        id: String,
        directory: PathBuf,
        no_change: Option<Duration>,
        automatic: bool,
        surroundings: &Arc<Surroundings>,
    ) -> Arc<Self> {
        let now = SystemTime::now();
        Arc::new(Self {
            id,
            created: now,
            automatic,
            surroundings: Arc::clone(surroundings),
            core: Mutex::new(Core {
                terminal: None,
                families: Vec::new(),
                directory,
                no_change,
                history: History::default(),
                last_number: 0,
                last_used: now,
            }),
            changed: watch::Sender::new(0),
            printed: watch::Sender::new(0),
            poke: Notify::new(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Where the session's bash is, or would start.
    pub(crate) fn directory(&self) -> PathBuf {
        let mut core = self.core.lock();
        if let Some(directory) = core.terminal.as_ref().and_then(|terminal| terminal.directory()) {
            core.directory = directory;
        }
        core.directory.clone()
    }

    pub(crate) fn last_used(&self) -> SystemTime {
        self.core.lock().last_used
    }

    /// A command is running or waits for its turn.
    pub(crate) fn is_busy(&self) -> bool {
        self.turn.available_permits() == 0 || self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn no_change(&self, requested: Option<Duration>) -> Duration {
        requested.or(self.core.lock().no_change).unwrap_or(NO_CHANGE)
    }

    /// Changes the session's no-change time-out, that of the command in progress included.
    pub(crate) fn update(&self, no_change: Option<Duration>) {
        {
            let mut core = self.core.lock();
            core.no_change = no_change;
            if let Some(execution) = core.history.last() {
                execution.lock().no_change = no_change.unwrap_or(NO_CHANGE);
            }
        }
        self.poke.notify_one();
    }

    /// Waits until no other command runs. `wait` `None`: fail at once instead.
    pub(crate) async fn take_turn(&self, wait: Option<Duration>) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.turn).try_acquire_owned() {
            return Ok(permit);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(ApiError::not_found(format!("Session not found: {} was closed", self.id)));
        }
        let Some(wait) = wait else { return Err(self.busy()) };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(self.busy());
        }
        let waiting = WaitingGuard(&self.waiting);
        let permit = tokio::time::timeout(wait, Arc::clone(&self.turn).acquire_owned()).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ApiError::not_found("Session not found: it was closed")),
            Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> ApiError {
        let command = self.core.lock().history.last().map(|last| last.lock().command.clone());
        let command: String = command.unwrap_or_default().chars().take(200).collect();
        ApiError::bad_request(format!("session {} is busy: {command:?} is still running in it", self.id))
            .with_hint(
                "wait for it, write to it or kill it (/v1/shell/wait, write, kill), or use another session",
            )
    }

    /// Starts `order` in the session's bash and returns it, and whether a fresh bash had to be started for it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        order: Order,
        change_to: Option<PathBuf>,
        turn: OwnedSemaphorePermit,
    ) -> Result<(SharedExecution, bool), ApiError> {
        let text = match change_to {
            Some(directory) => format!("builtin cd -- {}\n{}", quoted(&directory), order.command),
            None => order.command.clone(),
        };
        let (mut terminal, mut fresh) = self.ensure_terminal().await?;
        let spared = self.there_before(&terminal).await;
        let memory = self.surroundings.kills.watch();
        let (execution, number) = {
            let mut core = self.core.lock();
            core.last_number += 1;
            core.last_used = SystemTime::now();
            let number = core.last_number;
            let budget = &self.surroundings.budget;
            let mut execution = Execution::new(number, order, turn, budget, memory);
            execution.spared = Arc::new(Mutex::new(spared));
            let execution = Arc::new(Mutex::new(execution));
            core.history.push(Arc::clone(&execution));
            (execution, number)
        };
        let mut handed = terminal.run(number, &text);
        if handed.is_err() {
            // bash ended between two commands and the driver has not seen it yet.
            self.forget(&terminal);
            match self.ensure_terminal().await {
                Ok((replacement, _)) => (terminal, fresh) = (replacement, true),
                Err(error) => {
                    execution.lock().finish(Status::Terminated, None);
                    return Err(error);
                }
            }
            handed = terminal.run(number, &text);
        }
        if let Err(error) = handed {
            execution.lock().finish(Status::Terminated, None);
            return Err(ApiError::internal(format!("bash of session {} takes no command: {error}", self.id)));
        }
        self.poke.notify_one();
        Ok((execution, fresh && number > 1))
    }

    /// What earlier commands have left running, which lives on when the next is ended. Usually nothing, and that costs
    /// two short system files to see.
    async fn there_before(&self, terminal: &Terminal) -> Spared {
        if terminal.is_alone() {
            return Spared::default();
        }
        let shell = terminal.pid.as_raw_nonzero().get();
        let family = terminal.family.clone();
        let looked = self.surroundings.pool.run(move || Spared::all(&family.members(), shell)).await;
        looked.unwrap_or_default()
    }

    /// The running bash, started now when there is none. `true`: it was started now.
    pub(crate) async fn ensure_terminal(self: &Arc<Self>) -> Result<(Arc<Terminal>, bool), ApiError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ApiError::not_found(format!("Session not found: {} was closed", self.id)));
        }
        let running = self.core.lock().terminal.clone();
        if let Some(terminal) = running
            && terminal.exited.borrow().is_none()
        {
            return Ok((terminal, false));
        }
        let directory = self.core.lock().directory.clone();
        let surroundings = Arc::clone(&self.surroundings);
        let started = self.surroundings.pool.run(move || {
            let directory = existing_or_root(&directory);
            let environment = &surroundings.environment;
            let spec = BashSpec { program: &surroundings.bash, directory, environment };
            terminal::start(&spec, &surroundings.reaper)
        });
        let cannot = |error: std::io::Error| self.surroundings.cannot_start_bash(&error);
        let terminal = Arc::new(Terminal::adopt(started.await?.map_err(cannot)?).map_err(cannot)?);
        {
            let mut core = self.core.lock();
            core.families.retain(|family| !family.is_gone());
            core.families.push(terminal.family.clone());
            core.terminal = Some(Arc::clone(&terminal));
        }
        tokio::spawn(driver::drive(Arc::clone(self), Arc::clone(&terminal)));
        Ok((terminal, true))
    }

    fn forget(&self, terminal: &Arc<Terminal>) {
        let mut core = self.core.lock();
        if core.terminal.as_ref().is_some_and(|current| Arc::ptr_eq(current, terminal)) {
            core.terminal = None;
        }
    }

    /// Waits until `execution` has ended or callers are to be told that it prints nothing, or until `deadline`.
    pub(crate) async fn wait(
        &self,
        execution: &SharedExecution,
        deadline: Option<Instant>,
        through: Through,
    ) {
        let mut changed = self.changed.subscribe();
        let settled = async {
            loop {
                {
                    let execution = execution.lock();
                    let silent = execution.status == Status::NoChangeTimeout && !through.silence;
                    let asked = execution.question.is_pressing && !through.questions;
                    if !execution.is_live() || silent || asked {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        match deadline {
            Some(deadline) => drop(tokio::time::timeout_at(deadline, settled).await),
            None => settled.await,
        }
    }

    /// Begins to end the command in progress. `false`: none is.
    pub(crate) fn end_current(&self, reason: Ending) -> bool {
        let Some(execution) = self.last() else { return false };
        {
            let mut execution = execution.lock();
            if !execution.is_live() {
                return false;
            }
            let now = Instant::now();
            let steps = EndingSteps { reason, since: now, next: now, taken: 0, front: None };
            execution.ending.get_or_insert(steps);
        }
        self.poke.notify_one();
        true
    }

    /// Looks soon whether bash still runs its command: somebody typed what may interrupt it.
    pub(crate) fn watch_closely(&self) {
        if let Some(execution) = self.last() {
            let mut execution = execution.lock();
            execution.watch = Watch::begin(Instant::now());
            execution.question = Question::default();
            drop(execution);
            self.poke.notify_one();
        }
    }

    pub(crate) fn last(&self) -> Option<SharedExecution> {
        self.core.lock().history.last().cloned()
    }

    pub(crate) fn terminal(&self) -> Option<Arc<Terminal>> {
        self.core.lock().terminal.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.last().map_or(Status::Completed, |last| last.lock().status)
    }

    pub(crate) fn view(&self) -> View {
        let (console, last) = {
            let core = self.core.lock();
            (core.history.console(), core.history.last().cloned())
        };
        let last = last.map(|last| {
            let last = last.lock();
            let ended = (last.status, Some(last.command.clone()), last.exit_code);
            (ended, last.question.is_asked(), last.verdict.clone())
        });
        let ((status, command, exit_code), is_asking, verdict) =
            last.unwrap_or(((Status::Completed, None, None), false, None));
        View { status, command, exit_code, console, is_asking, verdict }
    }

    /// Tells everyone who waits that a status has changed.
    pub(super) fn announce(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
        self.announce_output();
    }

    /// Tells those who follow that a command has printed.
    pub(super) fn announce_output(&self) {
        self.printed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Changes whenever a command prints, or its status changes.
    pub(super) fn printed(&self) -> watch::Receiver<u64> {
        self.printed.subscribe()
    }

    pub(super) async fn poked(&self) {
        self.poke.notified().await;
    }

    /// bash has ended: remembers where it was and lets the next command start another.
    pub(super) fn shell_ended(&self, terminal: &Arc<Terminal>) {
        self.forget(terminal);
    }

    pub(super) fn is_current(&self, terminal: &Arc<Terminal>) -> bool {
        self.core.lock().terminal.as_ref().is_some_and(|current| Arc::ptr_eq(current, terminal))
    }

    pub(super) fn note_directory(&self, terminal: &Terminal) {
        if let Some(directory) = terminal.directory() {
            self.core.lock().directory = directory;
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.surroundings.pool
    }

    pub(super) fn reaper(&self) -> &Reaper {
        &self.surroundings.reaper
    }

    /// Ends the session and everything in it: it is told to hang up, as by the closing of a terminal window, and killed
    /// a moment later. Whoever closes a session means all of it, also what asked not to be told (`nohup`) or left for a
    /// session of its own.
    pub(crate) async fn close(&self) {
        self.shut();
        self.end_current(Ending::Killed);
        let families = self.core.lock().families.clone();
        let all = families.clone();
        let hang_up = move || {
            let told = all.iter().map(|family| family.signal(Signal::HUP)).sum::<usize>();
            for family in &all {
                family.signal(Signal::CONT);
            }
            told
        };
        let told = self.surroundings.pool.run(hang_up).await;
        if told.is_ok_and(|told| told == 0) {
            return;
        }
        let all_gone = async {
            for family in &families {
                family.wait_until_gone().await;
            }
        };
        if tokio::time::timeout(CLOSE_GRACE, all_gone).await.is_err() {
            let end = move || families.iter().map(Family::end).sum::<usize>();
            let _ = self.surroundings.pool.run(end).await;
        }
    }

    /// Ends the session because it was not used, or another needs its place. What its commands have left running goes on
    /// in no session.
    pub(crate) async fn retire(&self) {
        self.shut();
        let (families, terminal) = {
            let core = self.core.lock();
            (core.families.clone(), core.terminal.clone())
        };
        let shell = terminal.as_ref().map(|terminal| terminal.pid.as_raw_nonzero().get());
        let look = move || families.iter().flat_map(Family::members).any(|member| Some(member.pid) != shell);
        match (self.surroundings.pool.run(look).await, terminal) {
            (Ok(false), _) => self.close().await,
            (_, Some(terminal)) => {
                let (pool, reaper) = (self.surroundings.pool.clone(), self.surroundings.reaper.clone());
                tokio::spawn(leftover::end_bash_after(terminal, pool, reaper));
            }
            (_, None) => {}
        }
    }

    /// Something runs in it: a command, or what one has left running. Reads `/proc`: call it on the pool.
    pub(crate) fn is_active(&self) -> bool {
        if self.is_busy() {
            return true;
        }
        let (families, terminal) = {
            let core = self.core.lock();
            (core.families.clone(), core.terminal.clone())
        };
        let keeper = terminal.as_ref().map(|terminal| terminal.family.keeper());
        let others = families.iter().filter(|family| Some(family.keeper()) != keeper);
        terminal.is_some_and(|terminal| !terminal.is_alone())
            || others.into_iter().any(|other| !other.is_gone())
    }

    /// No command begins or waits from now on.
    fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.turn.close();
    }
}

struct WaitingGuard<'a>(&'a AtomicUsize);

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session whose directory was removed meanwhile still gets a bash.
fn existing_or_root(directory: &Path) -> &Path {
    if directory.is_dir() { directory } else { Path::new("/") }
}

/// `directory` as one word of shell syntax.
fn quoted(directory: &Path) -> String {
    format!("'{}'", directory.to_string_lossy().replace('\'', r"'\''"))
}
