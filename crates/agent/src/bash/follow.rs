//! A command told as it prints.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::command::BashCommand;
use crate::http::events::{Follow, Next, PIECE};

/// A command and how much of its two streams was told.
pub(super) struct Following<R> {
    command: Arc<BashCommand>,
    /// When the caller is answered although the command runs.
    deadline: Option<Instant>,
    /// The envelope of the JSON answer.
    result: R,
    told: [u64; 2],
    /// Where the streams end. What others write into them after the command has ended is none of it.
    end: Option<[u64; 2]>,
}

impl<R: Fn(&BashCommand) -> String + Send + 'static> Following<R> {
    pub(super) fn new(command: Arc<BashCommand>, deadline: Option<Instant>, result: R) -> Self {
        Self { command, deadline, result, told: [0; 2], end: None }
    }
}

impl<R: Fn(&BashCommand) -> String + Send + 'static> Follow for Following<R> {
    fn next(&mut self) -> Next {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let pieces = self.command.pieces(self.told, &mut self.end, late, PIECE);
        let mut output = Map::new();
        for ((name, told), piece) in ["stdout", "stderr"].into_iter().zip(&mut self.told).zip(pieces) {
            *told = piece.next;
            if !piece.content.is_empty() {
                output.insert(name.to_owned(), Value::String(piece.content));
            }
        }
        if !output.is_empty() {
            return Next::Output(Value::Object(output));
        }
        match self.end {
            Some(_) => Next::Result((self.result)(&self.command)),
            None => Next::Nothing(self.deadline),
        }
    }
}
