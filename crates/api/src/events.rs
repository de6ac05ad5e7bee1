//! What happened to a sandbox.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stockade_core::sandbox::SandboxEvent;
use utoipa::ToSchema;

/// What happened to a sandbox lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<Event>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    #[schema(example = "Warning")]
    pub kind: String,
    /// In one word.
    #[schema(example = "FailedMount")]
    pub reason: String,
    /// As a sentence.
    pub message: String,
    /// How often it was seen.
    pub count: u32,
    /// When it was last seen.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen: Option<Timestamp>,
}

impl From<SandboxEvent> for Event {
    fn from(event: SandboxEvent) -> Self {
        Self {
            kind: if event.warning { "Warning" } else { "Normal" }.to_owned(),
            reason: event.reason,
            message: event.message,
            count: event.count,
            last_seen: event.last_seen,
        }
    }
}

impl FromIterator<SandboxEvent> for EventList {
    fn from_iter<I: IntoIterator<Item = SandboxEvent>>(events: I) -> Self {
        Self { events: events.into_iter().map(Event::from).collect() }
    }
}
