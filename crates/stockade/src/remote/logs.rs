//! What the main process of a sandbox wrote.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use stockade_api::query::LogQuery;

use super::Server;
use super::cut::Before;
use crate::printable::Pieces;

/// Prints the log as it comes: to a terminal what can be seen of it, else byte by byte. Commands of the sandbox may
/// write there, and nobody asked for their sequences.
///
/// # Errors
/// When the sandbox is not there, the connection breaks, or nothing can be printed.
pub(crate) async fn run(server: &Server, id: &str, query: LogQuery) -> anyhow::Result<ExitCode> {
    let follows = query.follow;
    let before = Before::of(server, id).await;
    let mut log = server.client().logs(id, query).await.map_err(|error| server.explain(error))?;
    let mut seen = io::stdout().is_terminal().then(Pieces::default);
    let broken = loop {
        let piece = match log.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        let mut out = io::stdout().lock();
        match &mut seen {
            Some(seen) => seen.write(&mut out, &piece)?,
            None => out.write_all(&piece)?,
        }
        out.flush()?;
    };
    if let Some(seen) = &mut seen {
        seen.end(&mut io::stdout().lock())?;
    }
    match broken {
        Some(error) => Err(before.explain(server, error.into()).await),
        None => {
            // One that is followed ends with its sandbox.
            if follows && let Some(why) = before.what_happened(server).await {
                writeln!(io::stderr(), "stockade: {why}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
