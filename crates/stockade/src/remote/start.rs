//! Waiting for a server that is just being started: `stockade up & stockade create` is one line.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use stockade_api::client::{ClientError, Deadlines};
use tokio::time::sleep;

use super::server::{NoServer, Server, ServerOptions};
use crate::settings::Surroundings;

/// How long a server of this machine may take from its start until it listens. Whoever has none waits so long to
/// hear of it.
const LISTEN: Duration = Duration::from_secs(1);
/// How long a server may take until it serves: a kubeconfig is waited for half a minute.
const SERVE: Duration = Duration::from_secs(45);
/// How long one question whether it serves may take. One that is too busy to say so is asked what was to be asked.
const QUESTION: Duration = Duration::from_secs(2);
/// The pause between two questions.
const AGAIN: Duration = Duration::from_millis(50);
/// After this long it is said what is waited for.
const QUIET: Duration = Duration::from_secs(2);

/// How far a server is.
enum Stage {
    /// It answers calls, or its answer is one to be shown.
    Serves,
    /// It says that it is being started.
    Starts,
    /// Nobody listens there.
    Absent,
}

/// The server that is meant, once it serves.
///
/// # Errors
/// When there is none, it does not come to serve, or what was said about it is wrong.
pub(crate) async fn find(options: &ServerOptions, surroundings: &Surroundings<'_>) -> anyhow::Result<Server> {
    let began = Instant::now();
    let mut said = false;
    loop {
        let server = match Server::find(options, surroundings) {
            Err(error) if error.is::<NoServer>() && began.elapsed() < LISTEN => {
                sleep(AGAIN).await;
                continue;
            }
            found => found?,
        };
        match stage(&server).await {
            // It may have written down where its key is since it was looked for.
            Stage::Serves if server.is_known() => return Ok(server),
            Stage::Serves => return Server::find(options, surroundings),
            // The command itself says that there is none.
            Stage::Absent if began.elapsed() >= LISTEN || !server.is_local() => return Ok(server),
            Stage::Starts if began.elapsed() >= SERVE => {
                bail!(
                    "{} is still starting after {} s; its log says what it waits for",
                    server.url(),
                    SERVE.as_secs()
                )
            }
            Stage::Absent | Stage::Starts => {}
        }
        if began.elapsed() >= QUIET && !std::mem::replace(&mut said, true) {
            writeln!(io::stderr(), "stockade: waiting for {} to start", server.url())?;
        }
        sleep(AGAIN).await;
    }
}

/// Asks for what every server has in its memory.
async fn stage(server: &Server) -> Stage {
    let deadlines = Deadlines { read: QUESTION, ..Deadlines::default() };
    match server.client().clone().with_deadlines(deadlines).capabilities().await {
        Err(ClientError::Refused { code, .. }) if code == "starting" => Stage::Starts,
        Err(ClientError::Unreachable { .. }) => Stage::Absent,
        _ => Stage::Serves,
    }
}
