//! What to do about a sandbox, from what was written down of it and what is there of it.
//!
//! ```text
//!            create                    ready
//!   (none) ─────────► Making ─────────► Live ◄──── a start again, a while after its process ended
//!                        │               │ │
//!        the maker died  │        delete │ └─ it ended too often ─► Failed
//!                        ▼               ▼                            │ delete
//!                     removed ◄──────  Deleting ◄─────────────────────┘
//! ```
//!
//! One that failed because its files take too much runs no more, but an agent that only reads shows its files to
//! whoever connects, until it is deleted.
//!
//! Planning never awaits, time is an argument, and a plan may be made again whenever something was seen.

use std::time::Duration;

use jiff::Timestamp;

use crate::settings::RestartLimit;
use crate::state::record::{Exit, Failure, Life, Phase};

/// What is there of the process that was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Main {
    /// None was written down, or it has ended while the machine ran.
    Ended,
    /// It runs.
    Runs,
    /// The machine has started anew since.
    OfAnEarlierBoot,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Take everything of it away.
    Remove,
    /// Watch the process, and lead its address to it.
    Adopt,
    /// Start it again, not before this time.
    StartAt(Timestamp),
    /// Start it as soon as somebody connects or asks for it.
    StartOnDemand,
    /// Never start it again.
    GiveUp(Failure),
    /// Leave it as it is.
    Keep,
}

/// The first wait between the end of a process and the next start; it doubles with each.
const BACK_OFF: Duration = Duration::from_millis(250);
/// The longest.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// What to do at this time.
#[must_use]
pub(crate) fn plan(life: &Life, main: Main, limit: RestartLimit, now: Timestamp) -> Action {
    match (life.phase, main) {
        (Phase::Making | Phase::Deleting, _) => Action::Remove,
        (Phase::Failed, Main::Runs) if life.only_reads().is_some() => Action::Adopt,
        (Phase::Failed, _) if life.only_reads().is_some() => Action::StartOnDemand,
        (Phase::Failed, _) => Action::Keep,
        (Phase::Live, Main::Runs) => Action::Adopt,
        (Phase::Live, Main::OfAnEarlierBoot) => Action::StartOnDemand,
        (Phase::Live, Main::Ended) => restart(life, limit, now),
    }
}

fn restart(life: &Life, limit: RestartLimit, now: Timestamp) -> Action {
    let recent = recent(&life.restarts, limit, now);
    let count = u32::try_from(recent.len()).unwrap_or(u32::MAX);
    if count >= limit.most {
        return Action::GiveUp(give_up(life.last_exit.as_ref(), limit));
    }
    match recent.last() {
        None => Action::StartAt(now),
        Some(last) => {
            let wait =
                BACK_OFF.saturating_mul(1_u32.checked_shl(count - 1).unwrap_or(u32::MAX)).min(MAX_BACK_OFF);
            let at = last.saturating_add(wait).unwrap_or(now);
            Action::StartAt(at.max(now))
        }
    }
}

/// The restarts that count at this time. A clock that went backwards makes none older.
#[must_use]
pub(crate) fn recent(restarts: &[Timestamp], limit: RestartLimit, now: Timestamp) -> Vec<Timestamp> {
    let counts =
        |at: &&Timestamp| Duration::try_from(now.duration_since(**at)).map_or(true, |age| age < limit.within);
    restarts.iter().filter(counts).copied().collect()
}

fn give_up(exit: Option<&Exit>, limit: RestartLimit) -> Failure {
    let how = exit.map_or_else(
        || "its main process ended".to_owned(),
        |exit| format!("its main process {}", how(exit)),
    );
    let often = format!(
        "it was started again {} times within {} minutes; deleting and creating it starts afresh",
        limit.most,
        limit.within.as_secs() / 60
    );
    let reason = if exit.is_some_and(|exit| exit.out_of_memory) { "OOMKilled" } else { "CrashLoopBackOff" };
    Failure { reason: reason.to_owned(), message: format!("{how}; {often}") }
}

/// How a process ended, as part of a sentence.
#[must_use]
pub(crate) fn how(exit: &Exit) -> String {
    match (exit.out_of_memory, exit.signal, exit.code) {
        (true, ..) => {
            "was ended by the kernel because the sandbox used more memory than its limit".to_owned()
        }
        (_, Some(signal), _) => format!("was ended by signal {signal}"),
        (_, _, Some(code)) => format!("ended with exit code {code}"),
        _ => "ended; how is not known, because an earlier server had started it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RestartLimit = RestartLimit { most: 3, within: Duration::from_secs(600) };

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    fn mk_life(phase: Phase, restarts: &[i64]) -> Life {
        Life {
            phase,
            process: None,
            paused: false,
            restarts: restarts.iter().map(|ms| at(*ms)).collect(),
            last_exit: None,
            failure: None,
        }
    }

    #[test]
    fn what_was_half_made_or_half_removed_is_removed_whatever_runs() {
        for phase in [Phase::Making, Phase::Deleting] {
            for main in [Main::Ended, Main::Runs, Main::OfAnEarlierBoot] {
                assert_eq!(plan(&mk_life(phase, &[]), main, LIMIT, at(0)), Action::Remove);
            }
        }
    }

    #[test]
    fn what_runs_is_adopted_and_what_failed_stays_failed() {
        assert_eq!(plan(&mk_life(Phase::Live, &[0, 1, 2, 3, 4]), Main::Runs, LIMIT, at(5)), Action::Adopt);
        assert_eq!(plan(&mk_life(Phase::Failed, &[]), Main::Ended, LIMIT, at(5)), Action::Keep);
    }

    #[test]
    fn after_a_restart_of_the_machine_it_waits_for_somebody() {
        let life = mk_life(Phase::Live, &[0, 1, 2, 3]);
        assert_eq!(plan(&life, Main::OfAnEarlierBoot, LIMIT, at(5)), Action::StartOnDemand);
    }

    #[test]
    fn the_first_start_again_is_at_once_and_the_next_ones_wait_longer() {
        let start =
            |restarts: &[i64], now| plan(&mk_life(Phase::Live, restarts), Main::Ended, LIMIT, at(now));
        assert_eq!(start(&[], 7), Action::StartAt(at(7)));
        assert_eq!(start(&[0], 7), Action::StartAt(at(250)));
        assert_eq!(start(&[0, 250], 300), Action::StartAt(at(750)));
        assert_eq!(start(&[0, 250], 5000), Action::StartAt(at(5000)), "what ran a while is started at once");
    }

    #[test]
    fn too_many_ends_within_the_window_are_final() {
        let life = mk_life(Phase::Live, &[0, 1, 2]);
        let Action::GiveUp(failure) = plan(&life, Main::Ended, LIMIT, at(3)) else { panic!("started again") };
        assert_eq!(failure.reason, "CrashLoopBackOff");
        assert!(failure.message.contains("3 times within 10 minutes"), "{failure:?}");
        let later = at(600_001);
        assert_eq!(
            plan(&life, Main::Ended, LIMIT, later),
            Action::StartAt(later),
            "{:?}",
            recent(&life.restarts, LIMIT, later)
        );
    }

    #[test]
    fn a_clock_that_went_backwards_forgives_nothing() {
        let life = mk_life(Phase::Live, &[1000, 1001, 1002]);
        assert!(matches!(plan(&life, Main::Ended, LIMIT, at(0)), Action::GiveUp(_)));
    }

    #[test]
    fn want_of_memory_is_said() {
        let exit = Exit { at: at(0), code: None, signal: Some(9), out_of_memory: true };
        let life = Life { last_exit: Some(exit), ..mk_life(Phase::Live, &[0, 1, 2]) };
        let Action::GiveUp(failure) = plan(&life, Main::Ended, LIMIT, at(3)) else { panic!("started again") };
        assert_eq!(failure.reason, "OOMKilled");
    }
}
