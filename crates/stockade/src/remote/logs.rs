//! What the main process of a sandbox wrote.

use std::io::{self, Write};
use std::process::ExitCode;

use stockade_api::query::LogQuery;

use super::Server;

/// Prints the log as it comes.
///
/// # Errors
/// When the sandbox is not there, the connection breaks, or nothing can be printed.
pub(crate) async fn run(server: &Server, id: &str, query: LogQuery) -> anyhow::Result<ExitCode> {
    let mut log = server.client().logs(id, query).await.map_err(|error| server.explain(error))?;
    while let Some(piece) = log.next().await? {
        let mut out = io::stdout().lock();
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
