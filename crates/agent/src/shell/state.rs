//! What a session knows: the command in progress, the ones before it, and how they are shown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::ending::Spared;
use crate::clean::Cleaner;
use crate::kills::{self, Verdict};
use crate::output::{Budget, Output};
use crate::text::cut_middle;

/// Finished commands whose record is kept.
const RECORDS: usize = 64;
/// Characters a record keeps once a newer command has finished.
const OLD_RECORD: usize = 4_000;
/// Characters of output an answer has unless `truncate` is off.
const TRUNCATED: usize = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Running,
    Completed,
    NoChangeTimeout,
    HardTimeout,
    Terminated,
}

/// Why a running command is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    HardTimeout,
    Killed,
}

/// How far the ending of a command has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndingSteps {
    pub(crate) reason: Ending,
    pub(crate) since: Instant,
    pub(crate) next: Instant,
    pub(crate) taken: u32,
    /// The process group that was in front when it began, if it was not bash's.
    pub(crate) front: Option<i32>,
}

/// When it is looked whether bash still runs the command, or was thrown to a prompt that leads nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    pub(crate) next: Instant,
    gap: Duration,
    /// It looked so the last time.
    suspected: bool,
}

impl Watch {
    /// The first look, and the second at what looks wrong: longer than bash takes between two commands.
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(5);

    pub(crate) fn begin(now: Instant) -> Self {
        Self { next: now + Self::SHORT, gap: Self::SHORT, suspected: false }
    }

    /// Takes what was seen now. `true`: it was seen twice, and bash is to be called back.
    pub(crate) fn seen(&mut self, adrift: bool, now: Instant) -> bool {
        let certain = adrift && self.suspected;
        self.suspected = adrift && !certain;
        self.gap = if self.suspected { Self::SHORT } else { (self.gap * 2).min(Self::LONG) };
        self.next = now + self.gap;
        certain
    }

    /// The next look is not later than that.
    pub(crate) fn hasten(&mut self, now: Instant, gap: Duration) {
        self.next = self.next.min(now + gap);
    }
}

/// Whether the command waits for input from its terminal, as far as was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Question {
    since: Option<Instant>,
    seen: u32,
    /// Seen for so long that callers who wait for the end are answered.
    pub(crate) is_pressing: bool,
}

impl Question {
    /// Nothing may have been printed for this long: a program asks first, and then waits.
    pub(crate) const QUIET: Duration = Duration::from_millis(300);
    /// How long it waits before a caller that waits for the end is told.
    const PRESSING: Duration = Duration::from_secs(5);

    /// Takes what was seen now; whether callers are to be told something new.
    pub(crate) fn take(&mut self, awaited: bool, now: Instant) -> bool {
        let before = (self.is_asked(), self.is_pressing);
        if awaited {
            self.seen = self.seen.saturating_add(1);
            let since = *self.since.get_or_insert(now);
            self.is_pressing = now.duration_since(since) >= Self::PRESSING;
        } else {
            *self = Self::default();
        }
        before != (self.is_asked(), self.is_pressing)
    }

    /// Seen twice: a program that reads what is there already does not wait.
    pub(crate) fn is_asked(&self) -> bool {
        self.seen >= 2
    }
}

impl Ending {
    pub(crate) fn status(self) -> Status {
        match self {
            Self::HardTimeout => Status::HardTimeout,
            Self::Killed => Status::Terminated,
        }
    }
}

/// A command and what it has printed.
pub(crate) struct Execution {
    pub(crate) number: u64,
    pub(crate) command: String,
    pub(crate) status: Status,
    pub(crate) exit_code: Option<i32>,
    pub(crate) output: Output,
    cleaner: Cleaner,
    truncate: bool,
    pub(crate) last_output: Instant,
    pub(crate) no_change: Duration,
    pub(crate) hard_deadline: Option<Instant>,
    pub(crate) ending: Option<EndingSteps>,
    pub(crate) watch: Watch,
    pub(crate) question: Question,
    /// What lives on when the command is ended.
    pub(crate) spared: Arc<Mutex<Spared>>,
    memory: kills::Watch,
    /// What is said of its end when memory was short.
    pub(crate) verdict: Option<Verdict>,
    /// Held while the command runs: the next one in the queue gets it.
    turn: Option<OwnedSemaphorePermit>,
}

/// What a caller asks for a command.
pub(crate) struct Order {
    pub(crate) command: String,
    pub(crate) no_change: Duration,
    pub(crate) hard: Option<Duration>,
    pub(crate) truncate: bool,
}

impl Execution {
    pub(crate) fn new(
        number: u64,
        order: Order,
        turn: OwnedSemaphorePermit,
        budget: &Arc<Budget>,
        memory: kills::Watch,
    ) -> Self {
        let now = Instant::now();
        Self {
            number,
            command: order.command,
            status: Status::Running,
            exit_code: None,
            output: Output::new(budget),
            cleaner: Cleaner::new(),
            truncate: order.truncate,
            last_output: now,
            no_change: order.no_change,
            hard_deadline: order.hard.and_then(|hard| now.checked_add(hard)),
            ending: None,
            watch: Watch::begin(now),
            question: Question::default(),
            spared: Arc::default(),
            memory,
            verdict: None,
            turn: Some(turn),
        }
    }

    /// The process is still there, whatever callers were told.
    pub(crate) fn is_live(&self) -> bool {
        self.turn.is_some()
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut text = Vec::with_capacity(bytes.len());
        self.cleaner.feed(bytes, &mut text);
        self.output.append(&text);
        self.last_output = Instant::now();
        self.question = Question::default();
        if self.status == Status::NoChangeTimeout && self.is_live() {
            self.status = Status::Running;
        }
    }

    pub(crate) fn finish(&mut self, status: Status, exit_code: Option<i32>) {
        self.question = Question::default();
        let mut rest = Vec::new();
        self.cleaner.finish(&mut rest);
        self.output.append(&rest);
        self.status = self.ending.map_or(status, |ending| ending.reason.status());
        self.verdict = self.memory.verdict(exit_code);
        self.exit_code = exit_code.filter(|_| self.status == Status::Completed);
        self.turn = None;
    }

    /// The entry of `console` for this command.
    pub(crate) fn record(&self) -> ConsoleRecord {
        ConsoleRecord { ps1: PS1, command: self.command.clone(), output: self.text() }
    }

    pub(crate) fn text(&self) -> String {
        cut_middle(self.output.text(), if self.truncate { TRUNCATED } else { 0 })
    }
}

/// One entry of `console` in the answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ConsoleRecord {
    /// The prompt.
    #[schema(value_type = String)]
    ps1: &'static str,
    pub(crate) command: String,
    pub(crate) output: String,
}

/// An execution shared by the session, its driver and the callers that wait for it: a caller still
/// finds its own result when the next command has begun.
pub(crate) type SharedExecution = Arc<Mutex<Execution>>;

/// The commands of a session, oldest first.
#[derive(Default)]
pub(crate) struct History {
    old: VecDeque<ConsoleRecord>,
    last: Option<SharedExecution>,
}

impl History {
    /// Makes `execution` the newest and keeps a short record of the one before.
    pub(crate) fn push(&mut self, execution: SharedExecution) {
        if let Some(previous) = self.last.replace(execution) {
            if self.old.len() == RECORDS {
                self.old.pop_front();
            }
            let previous = previous.lock();
            let output = cut_middle(previous.output.text(), OLD_RECORD);
            let command = cut_middle(previous.command.clone(), OLD_RECORD);
            self.old.push_back(ConsoleRecord { ps1: PS1, command, output });
        }
    }

    pub(crate) fn last(&self) -> Option<&SharedExecution> {
        self.last.as_ref()
    }

    pub(crate) fn console(&self) -> Vec<ConsoleRecord> {
        let last = self.last.as_ref().map(|execution| execution.lock().record());
        self.old.iter().cloned().chain(last).collect()
    }
}

const PS1: &str = "$ ";

/// The session as a person would have seen it.
pub(crate) fn transcript(console: &[ConsoleRecord]) -> String {
    let mut text = String::new();
    for record in console {
        text.push_str(record.ps1);
        text.push_str(&record.command);
        text.push('\n');
        text.push_str(&record.output);
        if !record.output.is_empty() && !record.output.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_when_seen_twice_and_pressing_after_seconds() {
        let began = Instant::now();
        let mut question = Question::default();
        assert!(!question.take(true, began) && !question.is_asked());
        assert!(question.take(true, began + Duration::from_secs(1)) && question.is_asked());
        assert!(!question.take(true, began + Duration::from_secs(2)) && !question.is_pressing);
        assert!(question.take(true, began + Question::PRESSING) && question.is_pressing);
        assert!(question.take(false, began + Question::PRESSING), "it was answered");
        assert!(!question.is_asked() && !question.is_pressing);
    }

    #[test]
    fn bash_is_called_back_when_it_was_seen_adrift_twice_in_a_row() {
        let mut now = Instant::now();
        let mut watch = Watch::begin(now);
        for (adrift, certain) in [(true, false), (false, false), (true, false), (true, true), (true, false)] {
            assert!(watch.next > now);
            now = watch.next;
            assert_eq!(watch.seen(adrift, now), certain);
        }
        for _ in 0..20 {
            assert!(!watch.seen(false, now));
        }
        assert_eq!(watch.next - now, Watch::LONG);
    }
}
