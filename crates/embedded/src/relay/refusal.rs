//! What a caller hears whose request could not be passed on.
//!
//! Callers speak HTTP with the agent. Nothing was sent to them since their request, so an answer in the agent's own
//! form is right, and better than a broken connection.

use std::sync::Arc;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::Failure;

/// How long the caller may take to read it.
const READING: Duration = Duration::from_secs(2);
/// The most that is read of what the caller still sends, so that its own bytes do not break the connection
/// before it has the answer.
const MOST_READ: usize = 64 * 1024 * 1024;

/// Why a request was not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// The sandbox did not start in time.
    NotStarted,
    /// The sandbox runs and its agent does not accept connections.
    NotAccepting,
    /// There are too many connections.
    Busy,
    /// The sandbox is not started again.
    Failed(Arc<Failure>),
    /// It stopped while it had the request.
    Stopped(Arc<Failure>),
    /// It was deleted while it had the request.
    Deleted,
}

impl Reason {
    fn message(&self) -> String {
        match self {
            Self::NotStarted => "the sandbox did not start in time".to_owned(),
            Self::NotAccepting => "the sandbox does not accept connections".to_owned(),
            Self::Busy => "the sandbox has too many connections".to_owned(),
            Self::Failed(failure) => {
                format!("the sandbox has failed ({}): {}", failure.reason, failure.message)
            }
            Self::Stopped(failure) => {
                format!(
                    "the sandbox stopped before it answered ({}): {}; whether the request was carried out is not known",
                    failure.reason, failure.message
                )
            }
            Self::Deleted => "the sandbox was deleted before it answered".to_owned(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotStarted => "It may still be starting. Try again; the provisioner says what it is doing.",
            Self::NotAccepting => {
                "Its agent is overloaded or was stopped from inside. Try again, or delete the sandbox."
            }
            Self::Busy => {
                "Use connections again in place of opening more, and close those that are not needed."
            }
            Self::Failed(_) => "It is not started again. Creating it again replaces it, without its files.",
            Self::Stopped(_) => "Look at what is there before repeating this request.",
            Self::Deleted => "Creating it again makes a fresh one, without its files.",
        }
    }

    /// In one word.
    fn word(&self) -> &str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::NotAccepting => "NotAccepting",
            Self::Busy => "TooManyConnections",
            Self::Failed(failure) | Self::Stopped(failure) => &failure.reason,
            Self::Deleted => "Deleted",
        }
    }

    /// What has begun may have been done: no status after which clients repeat a request by themselves.
    fn status(&self) -> &'static str {
        match self {
            Self::Deleted => "410 Gone",
            Self::Stopped(_) => "424 Failed Dependency",
            _ => "503 Service Unavailable",
        }
    }

    /// The whole answer.
    fn answer(&self) -> String {
        let body = serde_json::json!({
            "success": false, "message": self.message(), "data": null, "hint": self.hint(), "reason": self.word(),
        })
        .to_string();
        // What has failed stays so.
        let again = match self {
            Self::NotStarted | Self::NotAccepting | Self::Busy => "retry-after: 1\r\n",
            Self::Failed(_) | Self::Stopped(_) | Self::Deleted => "",
        };
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             {again}cache-control: no-store\r\nconnection: close\r\n\r\n{body}",
            self.status(),
            body.len()
        )
    }
}

/// Answers and closes the connection, without hurry: a caller has to be able to read it.
pub(super) async fn refuse(client: TcpStream, reason: Reason) {
    // A caller that went away or does not read needs no answer.
    let answered = async {
        // Only to what is a request: who said nothing would take the answer for that of its next one.
        client.readable().await?;
        answer(&client, reason).await
    };
    let _ = timeout(READING, answered).await;
}

/// The same for a request that was passed on, of whose answer nothing has come.
pub(super) async fn refuse_passed(client: &TcpStream, reason: Reason) {
    let _ = timeout(READING, answer(client, reason)).await;
}

async fn answer(client: &TcpStream, reason: Reason) -> std::io::Result<()> {
    let answer = reason.answer();
    let mut rest = answer.as_bytes();
    while !rest.is_empty() {
        client.writable().await?;
        match client.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    shutdown(client, Shutdown::Write)?;
    let (mut read, mut buffer) = (0, vec![0; 16 * 1024]);
    while read < MOST_READ {
        client.readable().await?;
        match client.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_not_answered_as_if_it_could_be_repeated() {
        let failure = |reason: &str| Arc::new(Failure { reason: reason.to_owned(), message: "m".to_owned() });
        for (reason, status, word, again) in [
            (Reason::NotStarted, "503 ", "NotStarted", true),
            (Reason::Busy, "503 ", "TooManyConnections", true),
            (Reason::Failed(failure("Evicted")), "503 ", "Evicted", false),
            (Reason::Stopped(failure("OOMKilled")), "424 ", "OOMKilled", false),
            (Reason::Deleted, "410 ", "Deleted", false),
        ] {
            let answer = reason.answer();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.contains(&format!("\"reason\":\"{word}\"")), "{answer}");
            assert_eq!(answer.contains("retry-after"), again, "{answer}");
        }
    }
}
