//! What happens when the processes of a sandbox have ended, wanted or not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::entry::{Entry, Turn};
use super::error::{StartFailure, chain};
use super::inner::Inner;
use super::plan::{self, Action, Main};
use super::start;
use super::status::Trouble;
use crate::launch;
use crate::state::record::{Exit, Failure, Phase};

/// Its main process has ended.
pub(crate) async fn ended(inner: &Arc<Inner>, entry: &Arc<Entry>, start: u64, exit: Option<launch::Exit>) {
    let turn = entry.turn().await;
    let open = entry.open();
    if open.start != start || !entry.with(|record| record.life.may_run()) {
        return;
    }
    if let Some(why) = entry.with(|record| record.life.only_reads().cloned()) {
        return stopped_reading(inner, entry, &turn, why).await;
    }
    let (code, signal) = match exit {
        Some(launch::Exit::Code(code)) => (Some(code), None),
        Some(launch::Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    let killed = code.is_none() && signal.is_none_or(|signal| signal == libc::SIGKILL);
    let out_of_memory = match &open.cgroup {
        // The kernel counts commands it killed too; those do not end the sandbox.
        Some(cgroup) if killed => {
            inner.in_cgroup(cgroup, |cgroup| Ok(cgroup.oom_kills())).await.unwrap_or(0) > 0
        }
        _ => false,
    };
    let exit = Exit { at: Timestamp::now(), code, signal, out_of_memory };
    if out_of_memory {
        inner.metrics.out_of_memory();
    }
    let how = format!("its main process {}", plan::how(&exit));
    tracing::warn!(sandbox_id = %entry.id, "{how}");
    entry.happened(true, if out_of_memory { "OOMKilled" } else { "Ended" }, how.clone());
    let reason = if out_of_memory { "OOMKilled" } else { "Restarting" };
    stopped(inner, entry, &turn, Failure { reason: reason.to_owned(), message: how }).await;
    let written = inner.write(entry, &turn, |record| {
        record.life.process = None;
        record.life.paused = false;
        record.life.last_exit = Some(exit);
    });
    if let Err(error) = written {
        tracing::error!(sandbox_id = %entry.id, %error, "its end cannot be written down");
    }
    next(inner, entry, &turn).await;
}

/// None of its processes run: nothing leads there, and nothing of them is open. Callers that wait for an answer hear
/// why.
pub(crate) async fn stopped(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, why: Failure) {
    lead_away(inner, entry, Some(why)).await;
    close(entry, turn);
    inner.know(entry, |now| {
        now.runs = false;
        now.ready = false;
    });
}

/// The agent that showed the files of one that runs no more has ended, or has still to be started: whoever connects
/// next starts it.
pub(crate) async fn stopped_reading(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, why: Failure) {
    close(entry, turn);
    inner.know(entry, |now| {
        now.runs = false;
        now.ready = false;
        now.on_demand = true;
    });
    let written = entry.write_if_possible(turn, &inner.state, &inner.settings.node_host, |record| {
        record.life.process = None;
        record.life.paused = false;
    });
    if let Err(error) = written {
        tracing::error!(sandbox_id = %entry.id, %error, "that it ended cannot be written down; tried again");
    }
    detach(inner, entry, Some(why)).await;
}

/// Lets go of what was open of a start, which is void from here on.
fn close(entry: &Entry, turn: &Turn) {
    entry.set_open(turn, |open| {
        open.start += 1;
        open.pidfd = None;
        open.netns = None;
    });
}

/// Its port leads nowhere any more: callers wait for its next start, or hear that there is none. `why` is for those
/// whose request is cut.
pub(crate) async fn lead_away(inner: &Inner, entry: &Entry, why: Option<Failure>) {
    let failure = entry.with(|record| match record.life.phase {
        Phase::Failed => record.life.failure.clone(),
        _ => None,
    });
    let Some(failure) = failure else { return detach(inner, entry, why).await };
    let led = inner.relays.fail(&entry.id, &failure).await;
    if let Err(error) = led {
        tracing::warn!(sandbox_id = %entry.id, error = chain(&error), "its callers cannot be told that it failed");
    }
}

/// Has its connections wait; callers that wait for an answer are told why.
pub(crate) async fn detach(inner: &Inner, entry: &Entry, why: Option<Failure>) {
    if let Err(error) = inner.relays.detach(&entry.id, why).await {
        tracing::warn!(sandbox_id = %entry.id, error = chain(&error), "its port cannot be taken off it");
    }
}

/// A start that did not come to anything counts as one that ended at once.
pub(crate) async fn start_failed(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    turn: &Turn,
    failure: &StartFailure,
) {
    let message = chain(failure);
    tracing::error!(sandbox_id = %entry.id, error = message, "it cannot be started again");
    entry.happened(true, "StartFailed", message.clone());
    // A process that was started and could not be written down must not run on.
    start::kill(&entry.open());
    close(entry, turn);
    inner.know(entry, |now| {
        now.runs = false;
        now.ready = false;
        now.on_demand = false;
        now.trouble = Some(Trouble { reason: "StartFailed", message });
    });
    next(inner, entry, turn).await;
}

/// Does what the plan says about a sandbox whose processes have ended.
pub(crate) async fn next(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn) {
    let now = Timestamp::now();
    let action = entry.with(|record| plan::plan(&record.life, Main::Ended, inner.settings.restarts, now));
    match action {
        Action::StartAt(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            start_after(inner, entry, wait);
        }
        Action::GiveUp(failure) => give_up(inner, entry, turn, failure).await,
        // Its files cannot be shown: whoever asks for them hears why it has failed.
        Action::StartOnDemand => lead_away(inner, entry, None).await,
        Action::Adopt | Action::Keep | Action::Remove => {}
    }
}

/// It is not started again.
pub(crate) async fn give_up(inner: &Arc<Inner>, entry: &Arc<Entry>, turn: &Turn, failure: Failure) {
    write_failed(inner, entry, turn, failure);
    lead_away(inner, entry, None).await;
}

/// Writes down that it has failed, and why.
pub(crate) fn write_failed(inner: &Inner, entry: &Entry, turn: &Turn, failure: Failure) {
    tracing::error!(sandbox_id = %entry.id, reason = failure.reason, "{}", failure.message);
    entry.happened(true, &failure.reason, failure.message.clone());
    let written = entry.write_if_possible(turn, &inner.state, &inner.settings.node_host, |record| {
        record.life.phase = Phase::Failed;
        record.life.failure = Some(failure);
    });
    if let Err(error) = written {
        tracing::error!(sandbox_id = %entry.id, %error, "that it failed cannot be written down; tried again");
    }
}

/// Starts it after a while, if it is then still what it is now.
fn start_after(inner: &Arc<Inner>, entry: &Arc<Entry>, wait: Duration) {
    let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
    let start = entry.open().start;
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let turn = entry.turn().await;
        if entry.open().start == start && entry.phase() == Phase::Live && !entry.now().runs {
            start::again(&inner, &entry, &turn).await;
        }
    });
}
