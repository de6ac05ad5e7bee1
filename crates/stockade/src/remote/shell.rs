//! A terminal in a sandbox, in this terminal.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use http::Uri;
use rustix::termios::{self, OptionalActions, Termios};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::exec::standard_input;
use crate::signals::Signals;

/// How long the sandbox may take to open the terminal; one that was paused or is starting takes some of it.
const OPEN: Duration = Duration::from_secs(30);
/// How long one message may take to be sent.
const SEND: Duration = Duration::from_secs(30);
/// The most bytes of one message from the sandbox.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Bytes of input in one message: the agent takes 256 KiB of JSON.
const MAX_INPUT: usize = 16 * 1024;
/// Ctrl-D: the end of input, for a terminal.
const END_OF_INPUT: &str = "\u{4}";

#[derive(Deserialize)]
struct FromSandbox {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    timestamp: Value,
    /// How the shell ended; agents other than ours do not say.
    #[serde(default)]
    exit_code: Option<i64>,
}

/// Opens the terminal and passes everything on until it ends; `None` when the sandbox closed it without saying how its
/// shell ended.
///
/// # Errors
/// When the sandbox does not open one, or the connection breaks.
pub(crate) async fn run(url: &str) -> anyhow::Result<Option<ExitCode>> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut resized = signal(SignalKind::window_change()).context("cannot listen for resizes")?;
    let mut hung_up = signal(SignalKind::hangup()).context("cannot listen for the terminal's end")?;
    let opened = tokio::select! {
        opened = time::timeout(OPEN, open(url)) => opened,
        signal = signals.next() => return Ok(Some(Signals::exit_code(signal))),
    };
    let mut socket =
        opened.with_context(|| format!("{url} does not open a terminal within {} s", OPEN.as_secs()))??;
    let raw = RawTerminal::enter().context("cannot prepare this terminal")?;
    let result = talk(&mut socket, raw.is_some(), &mut signals, &mut resized, &mut hung_up).await;
    drop(raw);
    result
}

async fn open(url: &str) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no address of a sandbox"))?;
    let (Some(host), port) = (uri.host(), uri.port_u16().unwrap_or(80)) else {
        bail!("{url:?} is no address of a sandbox");
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await;
    let stream = stream.with_context(|| format!("no answer from {url}"))?;
    stream.set_nodelay(true)?;
    let address = format!("ws://{host}:{port}{}/v1/shell/ws", uri.path().trim_end_matches('/'));
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let (socket, _) = client_async_with_config(address, stream, Some(config))
        .await
        .with_context(|| format!("{url} opens no terminal"))?;
    Ok(socket)
}

async fn talk(
    socket: &mut WebSocketStream<TcpStream>,
    is_terminal: bool,
    signals: &mut Signals,
    resized: &mut Signal,
    hung_up: &mut Signal,
) -> anyhow::Result<Option<ExitCode>> {
    send_size(socket).await?;
    let mut input = standard_input();
    let mut keys = Keys::new(is_terminal);
    let mut has_input = true;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Some(code) = answer(socket, text.as_str()).await? {
                        return Ok(Some(code));
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(WebSocketError::ConnectionClosed)) => return Ok(None),
                Some(Err(error)) => return Err(error).context("the connection to the sandbox broke"),
            },
            typed = input.recv(), if has_input => {
                if !pass_on(socket, &mut keys, typed, &mut has_input).await? {
                    return Ok(Some(ExitCode::SUCCESS));
                }
            }
            _ = resized.recv() => send_size(socket).await?,
            _ = hung_up.recv() => return Ok(Some(ExitCode::FAILURE)),
            // On a terminal Ctrl-C is a key like others; a signal comes from elsewhere.
            signal = signals.next() => return Ok(Some(Signals::exit_code(signal))),
        }
    }
}

/// Passes typed bytes on; false when they say to leave.
async fn pass_on(
    socket: &mut WebSocketStream<TcpStream>,
    keys: &mut Keys,
    typed: Option<Vec<u8>>,
    has_input: &mut bool,
) -> anyhow::Result<bool> {
    let typed = typed.unwrap_or_default();
    if typed.is_empty() {
        *has_input = false;
        send(socket, &json!({ "type": "input", "data": END_OF_INPUT })).await?;
        return Ok(true);
    }
    let Some(text) = keys.take(&typed) else { return Ok(false) };
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_INPUT));
        send(socket, &json!({ "type": "input", "data": piece })).await?;
        rest = after;
    }
    Ok(true)
}

/// Does what a message says; the exit code when it was the last.
async fn answer(socket: &mut WebSocketStream<TcpStream>, text: &str) -> anyhow::Result<Option<ExitCode>> {
    // What is not understood is newer than this program.
    let Ok(message) = serde_json::from_str::<FromSandbox>(text) else { return Ok(None) };
    match message.kind.as_str() {
        "output" => {
            let mut out = io::stdout().lock();
            out.write_all(message.data.as_str().unwrap_or_default().as_bytes())?;
            out.flush()?;
        }
        "ping" => {
            let pong = json!({ "type": "pong", "data": { "timestamp": message.timestamp } });
            send(socket, &pong).await?;
        }
        "exit" => {
            let code = message.exit_code.unwrap_or(0);
            return Ok(Some(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)));
        }
        "error" => {
            let said = crate::printable::printable(message.data.as_str().unwrap_or("it gave no reason"));
            bail!("the sandbox cannot open a terminal: {said}");
        }
        _ => {}
    }
    Ok(None)
}

async fn send_size(socket: &mut WebSocketStream<TcpStream>) -> anyhow::Result<()> {
    // Without a terminal here, the sandbox's keeps the size it has.
    let Ok(size) = termios::tcgetwinsize(io::stdout()) else { return Ok(()) };
    if size.ws_col == 0 || size.ws_row == 0 {
        return Ok(());
    }
    let size = json!({ "type": "resize", "data": { "cols": size.ws_col, "rows": size.ws_row } });
    send(socket, &size).await
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: &Value) -> anyhow::Result<()> {
    let sent = time::timeout(SEND, socket.send(Message::text(message.to_string()))).await;
    sent.context("the sandbox takes no input")?.context("the connection to the sandbox broke")
}

/// What was typed: whole characters, and the way out (`~.` at the beginning of a line, as with ssh).
struct Keys {
    rest: Vec<u8>,
    at_line_start: bool,
    tilde: bool,
    has_way_out: bool,
}

impl Keys {
    fn new(has_way_out: bool) -> Self {
        Self { rest: Vec::new(), at_line_start: true, tilde: false, has_way_out }
    }

    /// The characters that are complete by now; `None` when the way out was typed.
    fn take(&mut self, typed: &[u8]) -> Option<String> {
        for byte in typed {
            if self.has_way_out {
                if self.tilde && *byte == b'.' {
                    return None;
                }
                if std::mem::take(&mut self.tilde) {
                    self.rest.push(b'~');
                } else if self.at_line_start && *byte == b'~' {
                    // Held back until the next key says what it meant.
                    self.tilde = true;
                    self.at_line_start = false;
                    continue;
                }
                self.at_line_start = matches!(byte, b'\r' | b'\n');
            }
            self.rest.push(*byte);
        }
        let whole = match std::str::from_utf8(&self.rest) {
            // Less than a character at the end may become one; what cannot is replaced.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        self.rest.drain(..whole);
        Some(text)
    }
}

/// This terminal as one that passes every key on. Dropping it makes it what it was.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` when standard input is no terminal.
    fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing is left to try when it fails: the terminal is gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
        let _ = writeln!(io::stdout());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]], has_way_out: bool) -> Option<String> {
        let mut keys = Keys::new(has_way_out);
        pieces.iter().map(|piece| keys.take(piece)).collect()
    }

    #[test]
    fn characters_are_passed_on_whole() {
        assert_eq!(typed(&[b"a\xc3", b"\xa9b"], true).unwrap(), "aéb");
        assert_eq!(typed(&[b"\xffz"], true).unwrap(), "\u{fffd}z");
    }

    #[test]
    fn the_way_out_is_at_the_beginning_of_a_line() {
        for (pieces, out) in
            [(&[&b"~."[..]][..], true), (&[b"ls\r~", b"."], true), (&[b"a~."], false), (&[b"\x1b~."], false)]
        {
            assert_eq!(typed(pieces, true).is_none(), out, "{pieces:?}");
        }
        assert_eq!(typed(&[b"~", b"/x\r~~."], true).unwrap(), "~/x\r~~.");
        assert_eq!(typed(&[b"~."], false).unwrap(), "~.");
    }
}
