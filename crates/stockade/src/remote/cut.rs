//! Why a connection to a sandbox broke: the connection cannot say, the server often can.

use jiff::Timestamp;
use stockade_api::Sandbox;

use super::Server;
use crate::printable::printable;

/// A sandbox as it was before the connection.
pub(crate) struct Before {
    id: String,
    created_at: Option<Timestamp>,
    /// When it was looked at, by our clock.
    at: Timestamp,
}

/// What may have ended the processes of a sandbox that is there.
const ENDS: [&str; 5] = ["OOMKilled", "Ended", "Evicted", "NotReady", "CrashLoopBackOff"];

impl Before {
    /// Looks at it. A server that cannot say is no reason not to begin.
    pub(crate) async fn of(server: &Server, id: &str) -> Self {
        let found = server.client().get(id).await.ok().flatten();
        Self::when(id, found.and_then(|sandbox| sandbox.created_at))
    }

    /// One that was looked at just now.
    pub(crate) fn of_sandbox(sandbox: &Sandbox<'_>) -> Self {
        Self::when(&sandbox.sandbox_id, sandbox.created_at)
    }

    fn when(id: &str, created_at: Option<Timestamp>) -> Self {
        Self { id: id.to_owned(), created_at, at: Timestamp::now() }
    }

    /// What broke, with what happened to the sandbox since, where something did.
    pub(crate) async fn explain(&self, server: &Server, broken: anyhow::Error) -> anyhow::Error {
        match self.what_happened(server).await {
            Some(why) => broken.context(why),
            None => broken,
        }
    }

    /// What happened to the sandbox since; `None` when it is as it was, or nobody can say.
    pub(crate) async fn what_happened(&self, server: &Server) -> Option<String> {
        let id = &self.id;
        let sandbox = match server.client().get(id).await {
            Ok(Some(sandbox)) => sandbox,
            Ok(None) => return Some(format!("sandbox {id:?} was deleted meanwhile")),
            Err(_) => return None,
        };
        if self.created_at.is_some() && sandbox.created_at != self.created_at {
            return Some(format!("sandbox {id:?} was deleted meanwhile, and another made under its id"));
        }
        let message = sandbox.message.as_deref().map(|message| format!(": {}", printable(message)));
        let message = message.unwrap_or_default();
        match sandbox.reason.as_deref() {
            Some("Paused") => return Some(format!("sandbox {id:?} was paused meanwhile{message}")),
            Some(reason) if !sandbox.ready => {
                let (status, reason) = (printable(&sandbox.status), printable(reason));
                return Some(format!("sandbox {id:?} is {status} ({reason}) now{message}"));
            }
            _ => {}
        }
        // It runs again.
        let events = server.client().events(id).await.ok()?.events;
        let since = |event: &&stockade_api::Event| event.last_seen.is_some_and(|seen| seen >= self.at);
        let end = events.iter().rfind(|event| since(event) && ENDS.contains(&event.reason.as_ref()))?;
        let (reason, message) = (printable(&end.reason), printable(&end.message));
        Some(format!("sandbox {id:?} ended meanwhile ({reason}: {message}) and was started again"))
    }
}
