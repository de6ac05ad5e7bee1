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
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::surroundings::Surroundings;
use super::terminal::{drop_unread, open_pair, resize, watch_descriptor};
use crate::app::App;
use crate::clock;
use crate::environment::NO_QUESTIONS;
use crate::http::ApiError;
use crate::process::{Exit, Launch, Started, ended, tree};
use crate::text::incomplete_tail;

const MAX_TERMINALS: usize = 32;
const PING: Duration = Duration::from_secs(30);
/// Longest message from a client. A longer paste comes in several.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// A message of up to this length is read to its end, so that its sender can be told that it is too long.
const READ_BYTES: usize = 2 * MESSAGE_BYTES;
/// With as much input waiting for the terminal, no more is read from the client.
const WAITING_BYTES: usize = 1024 * 1024;
/// Output of a terminal that is taken over from bash when it has ended.
const LAST_OUTPUT: usize = 256 * 1024;
/// How long a client that sent too much has to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The WebSocket's code for a message that is too long.
const TOO_LONG: u16 = 1009;
/// How long a client may take to accept one message.
const SEND: Duration = Duration::from_secs(30);
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
        .max_message_size(READ_BYTES)
        .max_frame_size(READ_BYTES)
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
    for (name, _) in NO_QUESTIONS {
        // A person can be asked, unless the sandbox says otherwise.
        if std::env::var_os(name).is_none() {
            bash.env_remove(name);
        }
    }
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
    let mut input = Waiting::default();
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
            ready = master.writable(), if !input.is_empty() => {
                let Ok(mut guard) = ready else { return Ok(()) };
                // The end of the terminal is heard of by reading.
                let _ = guard.try_io(|fd| input.write(fd.get_ref()));
            }
            message = socket.recv(), if input.has_room() => match message {
                Some(Ok(Message::Text(text))) if text.as_str().len() > MESSAGE_BYTES => {
                    return refuse(socket).await;
                }
                Some(Ok(Message::Text(text))) => handle(master, &mut input, text.as_str()),
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
                    if held.len() > LAST_OUTPUT {
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

/// Ends the connection because of a message that is too long, and says so.
async fn refuse(socket: &mut WebSocket) -> Result<(), axum::Error> {
    let said = format!("a message may have {MESSAGE_BYTES} bytes: send long input in several");
    send(socket, &json!({ "type": "error", "data": said })).await?;
    let frame = CloseFrame { code: TOO_LONG, reason: said.into() };
    let _ = tokio::time::timeout(SEND, socket.send(Message::Close(Some(frame)))).await;
    // A connection that is closed over bytes nobody has read is reset, and the reset overtakes what was said.
    let heard = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(LAST_WORDS, heard).await;
    Ok(())
}

/// Input that the terminal has not taken yet.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    written: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn has_room(&self) -> bool {
        self.bytes.len() - self.written < WAITING_BYTES
    }

    fn push(&mut self, input: String) {
        if self.is_empty() {
            *self = Self { bytes: input.into_bytes(), written: 0 };
        } else {
            self.bytes.drain(..self.written);
            self.written = 0;
            self.bytes.extend_from_slice(input.as_bytes());
        }
    }

    fn write(&mut self, terminal: &OwnedFd) -> io::Result<()> {
        self.written += rustix::io::write(terminal, &self.bytes[self.written..])?;
        if self.is_empty() {
            *self = Self::default();
        }
        Ok(())
    }
}

/// What interrupts, suspends or quits a program when it is typed.
const INTERRUPTS: [&str; 3] = ["\u{3}", "\u{1a}", "\u{1c}"];

/// A message that is not understood is left out.
fn handle(master: &AsyncFd<OwnedFd>, waiting: &mut Waiting, text: &str) {
    match serde_json::from_str(text) {
        Ok(FromClient::Input(input)) => {
            let interrupts = !waiting.is_empty() && INTERRUPTS.contains(&input.as_str());
            if interrupts && drop_unread(master.get_ref()).unwrap_or(false) {
                *waiting = Waiting::default();
            }
            waiting.push(input);
        }
        Ok(FromClient::Resize { cols, rows }) => {
            let _ = resize(master.get_ref(), cols.clamp(1, 1000), rows.clamp(1, 1000));
        }
        // `pong`, or something newer.
        Err(_) => {}
    }
}

async fn send(socket: &mut WebSocket, message: &Value) -> Result<(), axum::Error> {
    let sent = tokio::time::timeout(SEND, socket.send(Message::Text(message.to_string().into()))).await;
    sent.unwrap_or_else(|_| Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))))
}
