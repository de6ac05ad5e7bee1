//! How a sandbox looks to callers.

use stockade_core::{Sandbox, Status};

use super::plan::how;
use crate::state::record::{Phase, Record};

/// What the server knows beyond the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Its main process runs.
    pub(crate) runs: bool,
    /// The agent in it has said that it listens.
    pub(crate) ready: bool,
    /// It was stopped with the machine and starts when somebody connects.
    pub(crate) on_demand: bool,
    /// What keeps it from being reached or started.
    pub(crate) trouble: Option<Trouble>,
    /// What its files outside its mounts took when they were last measured, in bytes; no more than a little above its
    /// limit is counted.
    pub(crate) disk_used: Option<u64>,
}

/// Something that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In one word.
    pub(crate) reason: &'static str,
    /// As a sentence.
    pub(crate) message: String,
}

/// The sandbox as answers show it.
pub(crate) fn sandbox(record: &Record, now: &Now, node_host: &str) -> Sandbox {
    let (status, reason, message) = state(record, now);
    let notes = record.notes.join("; ");
    let message = match (message, notes.is_empty()) {
        (Some(message), true) => Some(message),
        (Some(message), false) => Some(format!("{message}; {notes}")),
        (None, false) => Some(notes),
        (None, true) => None,
    };
    Sandbox {
        id: record.id.clone(),
        url: format!("http://{node_host}:{}", record.port),
        status,
        ready: status == Status::Running,
        reason: reason.map(str::to_owned),
        message,
        created_at: Some(record.created_at),
        identity: Some(record.identity.clone()),
        contract: Some(record.contract),
        disk_used: now.disk_used,
    }
}

fn state<'a>(record: &'a Record, now: &Now) -> (Status, Option<&'a str>, Option<String>) {
    let life = &record.life;
    match life.phase {
        Phase::Failed => {
            let failure = life.failure.as_ref();
            let reason = failure.map_or("Failed", |failure| failure.reason.as_str());
            (Status::Failed, Some(reason), failure.map(|failure| failure.message.clone()))
        }
        Phase::Live if now.trouble.is_some() => {
            let trouble = now.trouble.as_ref();
            (
                Status::Pending,
                trouble.map(|trouble| trouble.reason),
                trouble.map(|trouble| trouble.message.clone()),
            )
        }
        Phase::Live if now.runs && life.paused => {
            let message = "its processes are stopped; the next connection wakes them".to_owned();
            (Status::Running, Some("Paused"), Some(message))
        }
        Phase::Live if now.runs && now.ready => (Status::Running, None, None),
        Phase::Live if now.on_demand => {
            let message =
                "the machine was restarted; the next connection starts it with its files".to_owned();
            (Status::Pending, Some("Stopped"), Some(message))
        }
        Phase::Live => match &life.last_exit {
            Some(exit) => {
                let reason = if exit.out_of_memory { "OOMKilled" } else { "Restarting" };
                let message = format!("its main process {}; it is started again", how(exit));
                (Status::Pending, Some(reason), Some(message))
            }
            None => (Status::Pending, Some("Starting"), None),
        },
        Phase::Making | Phase::Deleting => (Status::Pending, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::{Exit, Failure};
    use crate::state::tests::mk_record;

    fn check(change: impl FnOnce(&mut Record), now: &Now, expect: (Status, bool, Option<&str>)) {
        let mut record = mk_record("s1");
        record.life.phase = Phase::Live;
        change(&mut record);
        let sandbox = sandbox(&record, now, "127.0.0.1");
        assert_eq!((sandbox.status, sandbox.ready, sandbox.reason.as_deref()), expect, "{sandbox:?}");
        assert_eq!(sandbox.url, "http://127.0.0.1:20000");
    }

    #[test]
    fn each_state_has_its_name() {
        let runs = Now { runs: true, ready: true, ..Now::default() };
        let starts = Now { runs: true, ..Now::default() };
        let exit = |out_of_memory| {
            let at = "2026-11-01T02:03:04Z".parse().unwrap();
            Some(Exit { at, code: Some(1), signal: None, out_of_memory })
        };
        check(|_| (), &runs, (Status::Running, true, None));
        check(|_| (), &starts, (Status::Pending, false, Some("Starting")));
        check(|record| record.life.paused = true, &runs, (Status::Running, true, Some("Paused")));
        check(|record| record.life.last_exit = exit(false), &runs, (Status::Running, true, None));
        check(
            |record| record.life.last_exit = exit(false),
            &starts,
            (Status::Pending, false, Some("Restarting")),
        );
        check(
            |record| record.life.last_exit = exit(true),
            &Now::default(),
            (Status::Pending, false, Some("OOMKilled")),
        );
        let demand = Now { on_demand: true, ..Now::default() };
        check(|_| (), &demand, (Status::Pending, false, Some("Stopped")));
        let failed = |record: &mut Record| {
            record.life.phase = Phase::Failed;
            record.life.failure = Some(Failure { reason: "Evicted".into(), message: "too large".into() });
        };
        check(failed, &Now::default(), (Status::Failed, false, Some("Evicted")));
    }

    #[test]
    fn what_its_files_take_is_said_once_it_is_known() {
        let record = mk_record("s1");
        assert_eq!(sandbox(&record, &Now::default(), "h").disk_used, None);
        let measured = Now { disk_used: Some(7), ..Now::default() };
        assert_eq!(sandbox(&record, &measured, "h").disk_used, Some(7));
    }

    #[test]
    fn remarks_stand_beside_the_message() {
        let mut record = mk_record("s1");
        record.life.phase = Phase::Live;
        record.notes = vec!["a".into(), "b".into()];
        let runs = Now { runs: true, ready: true, ..Now::default() };
        assert_eq!(sandbox(&record, &runs, "h").message.as_deref(), Some("a; b"));
        record.life.paused = true;
        assert!(sandbox(&record, &runs, "h").message.unwrap().ends_with("wakes them; a; b"));
    }
}
