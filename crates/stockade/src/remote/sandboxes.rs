//! Listing, showing, pausing and ending sandboxes.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use stockade_api::{Event, Sandbox};

use super::Server;
use crate::printable::{escaped_json, printable};
use crate::table::{Table, age};

/// Prints all sandboxes.
///
/// # Errors
/// When the server does not answer, or nothing can be printed.
pub(crate) async fn list(server: &Server, as_json: bool) -> anyhow::Result<ExitCode> {
    let list = server.client().list().await.map_err(|error| server.explain(error))?;
    let mut out = io::stdout().lock();
    if as_json {
        print_json(&mut out, &json!({ "sandboxes": list.sandboxes, "count": list.count }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut table = Table::new(["ID", "STATUS", "AGE", "URL", "USER", "THREAD"]);
    for sandbox in &list.sandboxes {
        table.row([
            Cow::from(&*sandbox.sandbox_id),
            status(sandbox).into(),
            sandbox.created_at.map_or_else(String::new, |made| age(since(made, now))).into(),
            Cow::from(&*sandbox.sandbox_url),
            sandbox.user_id.clone().flatten().unwrap_or_default(),
            sandbox.thread_id.clone().flatten().unwrap_or_default(),
        ]);
    }
    table.print(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints one sandbox, and what happened to it where the server can say.
///
/// # Errors
/// When it is not there, the server does not answer, or nothing can be printed.
pub(crate) async fn get(server: &Server, id: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let sandbox = server.sandbox(id).await?;
    let mut out = io::stdout().lock();
    if as_json {
        print_json(&mut out, &sandbox)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&mut out, &sandbox)?;
    // Not every backend can say, and the sandbox was the question.
    let events = server.client().events(id).await.map(|list| list.events).unwrap_or_default();
    if !events.is_empty() {
        writeln!(out, "\nlately:")?;
        print_events(&mut out, &events)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_events(out: &mut dyn Write, events: &[Event]) -> io::Result<()> {
    let now = Timestamp::now();
    for event in events {
        let when = event.last_seen.map_or_else(|| "-".to_owned(), |seen| age(since(seen, now)));
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        let mark = if event.kind == "Warning" { '!' } else { ' ' };
        writeln!(
            out,
            "{mark} {when:>4}  {}: {}{times}",
            printable(&event.reason),
            printable(&event.message)
        )?;
    }
    Ok(())
}

/// Prints a sandbox, one property a line.
pub(crate) fn print(out: &mut dyn Write, sandbox: &Sandbox<'_>) -> io::Result<()> {
    let mut line = |name: &str, value: &str| writeln!(out, "{name:8} {}", printable(value));
    line("id", &sandbox.sandbox_id)?;
    line("url", &sandbox.sandbox_url)?;
    line("status", &status(sandbox))?;
    if let Some(message) = &sandbox.message {
        line("message", message)?;
    }
    if let Some(user) = sandbox.user_id.as_ref().and_then(Option::as_ref) {
        line("user", user)?;
    }
    if let Some(thread) = sandbox.thread_id.as_ref().and_then(Option::as_ref) {
        line("thread", thread)?;
    }
    if let Some(made) = sandbox.created_at {
        line("made", &format!("{made} ({} ago)", age(since(made, Timestamp::now()))))?;
    }
    line("backend", &sandbox.backend)
}

/// The status with what is behind it.
fn status(sandbox: &Sandbox<'_>) -> String {
    match (&sandbox.reason, sandbox.ready) {
        (Some(reason), _) => format!("{} ({reason})", sandbox.status),
        (None, true) => sandbox.status.to_string(),
        (None, false) => format!("{} (not ready)", sandbox.status),
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// Stops the processes of a sandbox, or lets them run on.
///
/// # Errors
/// When it is not there, or the server cannot.
pub(crate) async fn pause(
    server: &Server,
    id: &str,
    paused: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let client = server.client();
    let changed = if paused { client.pause(id).await } else { client.resume(id).await };
    let sandbox = changed.map_err(|error| server.explain(error))?;
    let mut out = io::stdout().lock();
    if as_json {
        print_json(&mut out, &sandbox)?;
    } else {
        writeln!(out, "{}", printable(&format!("{}  {}", sandbox.sandbox_id, status(&sandbox))))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends sandboxes; one that is not there makes the whole a failure, after the others.
///
/// # Errors
/// When the server does not answer or cannot end one.
pub(crate) async fn remove(server: &Server, ids: &[String], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut missing = false;
    for id in ids {
        let found = server.client().get(id).await.map_err(|error| server.explain(error))?;
        // Also when it was not found: what is half there has no address, and goes too.
        let deleted = server.client().delete(id).await.map_err(|error| server.explain(error))?;
        let mut out = io::stdout().lock();
        if as_json {
            print_json(&mut out, &deleted)?;
        } else if found.is_some() {
            writeln!(out, "{id} has ended")?;
        }
        if found.is_none() {
            missing = true;
            writeln!(io::stderr(), "stockade: {}", server.no_such(id))?;
        }
    }
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints a value as JSON, for programs and people.
pub(crate) fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    // What is not seen is written as JSON can write it: a terminal shows what is there, and programs read the same.
    writeln!(out, "{}", escaped_json(&serde_json::to_string_pretty(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_behind_it() {
        let mut sandbox: Sandbox<'_> = serde_json::from_value(json!({
            "sandbox_id": "a", "sandbox_url": "http://x", "status": "Running", "ready": true, "reason": null,
            "message": null, "created_at": null, "backend": "embedded",
        }))
        .unwrap();
        assert_eq!(status(&sandbox), "Running");
        sandbox.ready = false;
        assert_eq!(status(&sandbox), "Running (not ready)");
        sandbox.reason = Some("Paused".into());
        assert_eq!(status(&sandbox), "Running (Paused)");
    }
}
