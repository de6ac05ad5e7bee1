//! A command of a session, told as it prints.

use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use super::session::Session;
use super::state::{SharedExecution, Status};
use crate::http::events::{Follow, Next, PIECE};

/// A command and how much of its output was told.
pub(super) struct Following<R> {
    pub(super) session: Arc<Session>,
    pub(super) execution: SharedExecution,
    /// When the caller is answered although the command runs.
    pub(super) deadline: Option<Instant>,
    /// Go on although the command prints nothing, or waits for input.
    pub(super) through_silence: bool,
    /// The envelope of the JSON answer.
    pub(super) result: R,
    told: u64,
    /// Where the output ends. What jobs print in the background after the command has ended is none of it.
    end: Option<u64>,
}

impl<R: Fn(&Session, &SharedExecution) -> String + Send + 'static> Following<R> {
    pub(super) fn new(session: Arc<Session>, execution: SharedExecution, result: R) -> Self {
        let (deadline, through_silence) = (None, false);
        Self { session, execution, deadline, through_silence, result, told: 0, end: None }
    }
}

impl<R: Fn(&Session, &SharedExecution) -> String + Send + 'static> Follow for Following<R> {
    fn next(&mut self) -> Next {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        {
            let execution = self.execution.lock();
            let ended = !execution.is_live();
            let told = execution.status == Status::NoChangeTimeout || execution.question.is_pressing;
            let silent = told && !self.through_silence;
            if self.end.is_none() && (ended || silent || late) {
                self.end = Some(execution.output.total());
            }
            let piece = execution.output.piece_from(self.told, self.end, PIECE, ended);
            self.told = piece.next;
            if !piece.content.is_empty() {
                return Next::Output(json!({ "output": piece.content }));
            }
        }
        match self.end {
            Some(_) => Next::Result((self.result)(&self.session, &self.execution)),
            None => Next::Nothing(self.deadline),
        }
    }
}
