//! `GET /v1/shell/ws`: a person's terminal over a WebSocket.
//!
//! Here everything a terminal does is wanted: echo, prompt, colours. So it is a bash of its own on
//! a terminal of its own, without the framing of `exec`; it ends with the connection.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::surroundings::Surroundings;
use super::terminal::{open_pair, resize, watch_descriptor};
use crate::app::App;
use crate::clock;
use crate::http::ApiError;
use crate::process::{Exit, Launch, Started, ended, tree};
use crate::text::incomplete_tail;

const MAX_TERMINALS: usize = 32;
const PING: Duration = Duration::from_secs(30);
/// Longest message from a client.
const MESSAGE_BYTES: usize = 256 * 1024;
/// How long a client may take to accept one message.
const SEND: Duration = Duration::from_secs(30);
const WRITE: Duration = Duration::from_secs(5);
/// How long after its terminal the end of bash may be heard of. It may have closed the one and live on.
const REAP: Duration = Duration::from_secs(1);

/// Bounds how many there are.
pub(crate) struct Terminals(Arc<Semaphore>);

impl Default for Terminals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TERMINALS)))
    }
}

pub(crate) fn router() -> Router<App> {
    Router::new().route("/v1/shell/ws", get(connect))
}

async fn connect(
    State(app): State<App>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let slot = Arc::clone(&app.terminals().0).try_acquire_owned();
    let slot =
        slot.map_err(|_| ApiError::unavailable(format!("there are {MAX_TERMINALS} terminals already")))?;
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES)
        .on_upgrade(move |socket| serve(app, socket, slot))
        .into_response())
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum FromClient {
    Input(String),
    Resize { cols: u16, rows: u16 },
}

fn start(app: &App, surroundings: &Surroundings) -> io::Result<(OwnedFd, Started)> {
    let (master, slave) = open_pair()?;
    resize(&slave, 80, 24)?;
    let mut bash = Command::new(&surroundings.bash);
    bash.arg0("bash").arg("-i").current_dir(app.workspace()).env_clear();
    bash.envs(surroundings.environment.iter().map(|(key, value)| (key, value)));
    bash.env("TERM", "xterm-256color").env("COLORTERM", "truecolor");
    bash.stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    let mut launch = Launch::new(bash);
    launch.terminal = true;
    Ok((master, launch.start(&surroundings.reaper)?))
}

async fn serve(app: App, mut socket: WebSocket, _slot: OwnedSemaphorePermit) {
    let surroundings = Arc::clone(&app.bashes().surroundings);
    let for_start = app.clone();
    let started = app.pool().run(move || start(&for_start, &surroundings)).await;
    let (master, started) = match started
        .map_err(|error| error.message().to_owned())
        .and_then(|s| s.map_err(|e| e.to_string()))
    {
        Ok(started) => started,
        Err(error) => {
            let _ =
                send(&mut socket, &json!({ "type": "error", "data": format!("cannot start bash: {error}") }))
                    .await;
            return;
        }
    };
    let pid = started.pid;
    if let Ok(master) = watch_descriptor(master) {
        // Why it ended is plain to the client: the connection closes.
        let _ = talk(&mut socket, &master, started).await;
    }
    let end = move || {
        tree::signal_session(pid, Signal::HUP);
        tree::signal_where(Signal::KILL, |stat| {
            stat.session == pid.as_raw_nonzero().get() && !tree::ignores_hangup(stat.pid)
        })
    };
    let _ = app.pool().run(end).await;
}

async fn talk(
    socket: &mut WebSocket,
    master: &AsyncFd<OwnedFd>,
    started: Started,
) -> Result<(), axum::Error> {
    let mut exited = started.exited;
    send(socket, &json!({ "type": "session_id", "data": uuid::Uuid::new_v4().to_string() })).await?;
    send(socket, &json!({ "type": "ready", "data": "terminal ready" })).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut held = Vec::new();
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    loop {
        tokio::select! {
            ready = master.readable() => {
                let Ok(mut guard) = ready else { return Ok(()) };
                let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?));
                drop(guard);
                match read {
                    Ok(Ok(length)) if length > 0 => {
                        held.extend_from_slice(&buffer[..length]);
                        let whole = held.len() - incomplete_tail(&held);
                        let text = String::from_utf8_lossy(&held[..whole]).into_owned();
                        held.drain(..whole);
                        send(socket, &json!({ "type": "output", "data": text })).await?;
                    }
                    // The terminal may close before the end of bash is heard of.
                    Ok(_) => {
                        let exit = tokio::time::timeout(REAP, ended(&mut exited)).await.ok().flatten();
                        return finish(socket, exit).await;
                    }
                    Err(_would_block) => {}
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => handle(master, text.as_str()).await,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            _ = ping.tick() => {
                send(socket, &json!({ "type": "ping", "timestamp": clock::millis(SystemTime::now()) })).await?;
            }
            exit = ended(&mut exited) => {
                // What it wrote last may not have been read.
                while let Ok(length @ 1..) = rustix::io::read(master.get_ref(), &mut *buffer) {
                    held.extend_from_slice(&buffer[..length]);
                    if held.len() > MESSAGE_BYTES {
                        break;
                    }
                }
                if !held.is_empty() {
                    let text = String::from_utf8_lossy(&held).into_owned();
                    send(socket, &json!({ "type": "output", "data": text })).await?;
                }
                return finish(socket, exit).await;
            }
        }
    }
}

/// Says that bash has ended, and how, as a shell would say it.
async fn finish(socket: &mut WebSocket, exit: Option<Exit>) -> Result<(), axum::Error> {
    let code = exit.map(Exit::shell_code);
    send(socket, &json!({ "type": "exit", "data": null, "exit_code": code })).await?;
    socket.send(Message::Close(None)).await
}

/// A message that is not understood is left out.
async fn handle(master: &AsyncFd<OwnedFd>, text: &str) {
    match serde_json::from_str(text) {
        Ok(FromClient::Input(input)) => {
            let _ = tokio::time::timeout(WRITE, write_all(master, input.as_bytes())).await;
        }
        Ok(FromClient::Resize { cols, rows }) => {
            let _ = resize(master.get_ref(), cols.clamp(1, 1000), rows.clamp(1, 1000));
        }
        // `pong`, or something newer.
        Err(_) => {}
    }
}

async fn write_all(master: &AsyncFd<OwnedFd>, mut left: &[u8]) -> io::Result<()> {
    while !left.is_empty() {
        let mut guard = master.writable().await?;
        if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), left)?)) {
            left = &left[written?..];
        }
    }
    Ok(())
}

async fn send(socket: &mut WebSocket, message: &Value) -> Result<(), axum::Error> {
    let sent = tokio::time::timeout(SEND, socket.send(Message::Text(message.to_string().into()))).await;
    sent.unwrap_or_else(|_| Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))))
}
