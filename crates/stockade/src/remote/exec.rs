//! One command in a sandbox, as if it ran here: its streams apart, its exit status, its signals.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::agent::Agent;
use super::quote;
use crate::signals::Signals;

/// How long one question for output waits; the next follows.
const WAIT: Duration = Duration::from_secs(20);
/// How long clearing up may take when the command has ended, or nobody waits for it any more.
const LAST: Duration = Duration::from_secs(3);
/// Bytes of standard input in one call: what a pipe holds, so that a slow reader is noticed soon.
const INPUT: usize = 64 * 1024;
/// How long the request waits that says that we are there.
const PRESENCE: Duration = Duration::from_secs(600);
/// The exit status of a command that succeeded and whose output is not whole.
const INCOMPLETE: u8 = 1;
/// The exit status of what SIGINT ended, as shells say it.
const INTERRUPTED: u8 = 130;
/// The exit status when the sandbox did not say one.
const UNKNOWN: u8 = 255;

/// What to run.
pub(crate) struct Order {
    pub(crate) words: Vec<String>,
    pub(crate) directory: Option<String>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether it reads our standard input; else it reads nothing.
    pub(crate) with_input: bool,
}

#[derive(Serialize)]
struct ExecRequest<'a> {
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_dir: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    async_mode: bool,
    /// The command waits for us, as for the reader of a pipe.
    backpressure: bool,
}

#[derive(Deserialize)]
struct Started {
    session_id: String,
    command_id: String,
}

#[derive(Deserialize)]
struct OutputAnswer {
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    offset: u64,
    stderr_offset: u64,
    command: Option<CommandState>,
    #[serde(default)]
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct CommandState {
    status: String,
    exit_code: Option<i64>,
}

/// A command that runs.
struct Running {
    agent: Agent,
    session: String,
    command: String,
    offset: u64,
    stderr_offset: u64,
    /// Output that the sandbox dropped because it came faster than it was read, in bytes.
    lost: u64,
}

/// What the command's output is waiting for.
enum Step {
    Asking(Pin<Box<dyn Future<Output = anyhow::Result<OutputAnswer>>>>),
    Printing(JoinHandle<io::Result<()>>),
}

impl Step {
    /// Waits for the step to be done; an answer when it was a question.
    async fn done(&mut self) -> anyhow::Result<Option<OutputAnswer>> {
        match self {
            Self::Asking(question) => question.await.map(Some),
            Self::Printing(printing) => {
                printing.await.context("printing broke off")??;
                Ok(None)
            }
        }
    }
}

/// What an answer held.
enum Taken {
    Output(Vec<u8>, Vec<u8>),
    Nothing,
    /// That was all; the exit status.
    End(u8),
}

/// Why it is over; with our exit status.
enum End {
    /// The command has ended. What it has left running goes on, as on this machine.
    OfCommand(u8),
    /// Nobody waits for the command any more.
    OfWaiting(u8),
}

/// Runs the command to its end; the exit status is the command's.
///
/// # Errors
/// When the sandbox does not answer, or the command cannot be started.
pub(crate) async fn run(agent: Agent, order: Order) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    // In place of the shell that reads this, so that signals and the exit status are its own.
    let line = format!("exec -- {}", quote::line(&order.words));
    // Without input of ours it reads an empty one: a pipe that nobody closes would keep it waiting.
    let line = if order.with_input { line } else { format!("{line} < /dev/null") };
    let request = ExecRequest {
        command: &line,
        exec_dir: order.directory.as_deref(),
        env: &order.environment,
        async_mode: true,
        backpressure: true,
    };
    let started = tokio::select! {
        started = agent.post::<Started>("/v1/bash/exec", &request, Duration::ZERO) => started?,
        // A command that was started all the same ends when nobody asks for its output.
        signal = signals.next() => return Ok(Signals::exit_code(signal)),
    };
    let mut running = Running {
        agent,
        session: started.session_id,
        command: started.command_id,
        offset: 0,
        stderr_offset: 0,
        lost: 0,
    };
    let presence = tokio::spawn(running.presence());
    let result = running.follow(order.with_input, &mut signals).await;
    presence.abort();
    if !matches!(result, Ok(End::OfCommand(_))) {
        running.clear_up().await;
    }
    let (End::OfCommand(code) | End::OfWaiting(code)) = result?;
    if running.lost == 0 {
        return Ok(ExitCode::from(code));
    }
    let text = "bytes of its output were dropped by the sandbox, whose agent does not wait for its reader: write them \
                to a file there and read that";
    writeln!(io::stderr(), "stockade: {} {text}", running.lost)?;
    Ok(ExitCode::from(if code == 0 { INCOMPLETE } else { code }))
}

impl Running {
    async fn follow(&mut self, with_input: bool, signals: &mut Signals) -> anyhow::Result<End> {
        let feeding = self.feed(with_input);
        tokio::pin!(feeding);
        let mut fed = !with_input;
        let mut interrupts = 0;
        let mut step = Step::Asking(Box::pin(self.question()));
        loop {
            let answer = tokio::select! {
                done = step.done() => done?,
                result = &mut feeding, if !fed => {
                    fed = true;
                    result?;
                    continue;
                }
                signal = signals.next() => {
                    interrupts += 1;
                    if self.pass_on(signal, interrupts).await {
                        return Ok(End::OfWaiting(INTERRUPTED));
                    }
                    continue;
                }
            };
            step = match answer {
                Some(answer) => match self.take(answer)? {
                    Taken::Output(stdout, stderr) => Step::Printing(print(stdout, stderr)),
                    Taken::Nothing => Step::Asking(Box::pin(self.question())),
                    Taken::End(code) => return Ok(End::OfCommand(code)),
                },
                None => Step::Asking(Box::pin(self.question())),
            };
        }
    }

    /// Asks for what was written since, waiting for it.
    fn question(&self) -> impl Future<Output = anyhow::Result<OutputAnswer>> + use<> {
        let body = json!({
            "session_id": self.session,
            "command_id": self.command,
            "offset": self.offset,
            "stderr_offset": self.stderr_offset,
            "wait": true,
            "wait_timeout": WAIT.as_secs(),
            "encoding": "base64",
        });
        let agent = self.agent.clone();
        async move { agent.post("/v1/bash/output", &body, WAIT).await }
    }

    /// Keeps one request under way until the command ends: a reader that is stopped, or waits for its own reader, is
    /// still one. Agents that do not know this answer at once, which ends it.
    fn presence(&self) -> impl Future<Output = ()> + use<> {
        let body = json!({
            "session_id": self.session,
            "command_id": self.command,
            "wait_for_end": true,
            "wait_timeout": PRESENCE.as_secs(),
        });
        let agent = self.agent.clone();
        async move {
            loop {
                let began = Instant::now();
                let answer: anyhow::Result<Value> = agent.post("/v1/bash/output", &body, PRESENCE).await;
                if answer.is_err() || began.elapsed() < PRESENCE {
                    return;
                }
            }
        }
    }

    /// What the answer holds.
    fn take(&mut self, answer: OutputAnswer) -> anyhow::Result<Taken> {
        let exact = answer.encoding.as_deref() == Some("base64");
        let decode = |text: String| match exact {
            true => BASE64.decode(text).context("the sandbox's output is not what it says it is"),
            false => Ok(text.into_bytes()),
        };
        let (stdout, stderr) = (decode(answer.stdout)?, decode(answer.stderr)?);
        if exact {
            let came = answer.offset.saturating_sub(self.offset)
                + answer.stderr_offset.saturating_sub(self.stderr_offset);
            self.lost = self.lost.saturating_add(came.saturating_sub((stdout.len() + stderr.len()) as u64));
        }
        (self.offset, self.stderr_offset) = (answer.offset, answer.stderr_offset);
        let Some(command) = answer.command else { bail!("the sandbox has forgotten the command") };
        let has_ended = !matches!(command.status.as_str(), "running" | "pending");
        Ok(match (stdout.is_empty() && stderr.is_empty(), has_ended) {
            // What is left in the pipes is asked for once more.
            (false, _) => Taken::Output(stdout, stderr),
            (true, true) => Taken::End(exit_code(&command)),
            (true, false) => Taken::Nothing,
        })
    }

    /// Passes a signal of ours on; whether it is time to stop waiting.
    async fn pass_on(&self, signal: &str, count: u32) -> bool {
        let signal = match (signal, count) {
            (_, 3..) => "SIGKILL",
            ("SIGINT" | "Ctrl-C", 1) => "SIGINT",
            _ => "SIGTERM",
        };
        let body = json!({ "session_id": self.session, "signal": signal });
        self.agent.post_last("/v1/bash/kill", &body, LAST).await;
        count > 3
    }

    /// Sends standard input until its end.
    fn feed(&self, with_input: bool) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (agent, session, command) = (self.agent.clone(), self.session.clone(), self.command.clone());
        async move {
            if !with_input {
                return Ok(());
            }
            let mut input = standard_input();
            while let Some(piece) = input.recv().await {
                let is_last = piece.is_empty();
                if !send(&agent, &session, &command, &piece, is_last).await? || is_last {
                    return Ok(());
                }
            }
            Ok(())
        }
    }

    /// Ends what still runs of a command that has not ended, so that nothing of it stays in the sandbox.
    async fn clear_up(&self) {
        let path = format!("/v1/bash/sessions/{}/close", self.session);
        self.agent.post_last(&path, &json!({}), LAST).await;
    }
}

/// Sends one piece whole, however slowly it is read; whether the command still reads.
async fn send(
    agent: &Agent,
    session: &str,
    command: &str,
    mut piece: &[u8],
    close: bool,
) -> anyhow::Result<bool> {
    loop {
        let body = json!({
            "session_id": session,
            "command_id": command,
            "input": BASE64.encode(piece),
            "encoding": "base64",
            "close": close,
        });
        let answer: Result<Value, _> = agent.post("/v1/bash/write", &body, WAIT).await;
        // A command may end, or close its input, before it has read all.
        let Ok(answer) = answer else { return Ok(false) };
        let Some(written) = answer["written"].as_u64().and_then(|written| usize::try_from(written).ok())
        else {
            bail!(
                "this sandbox's agent cannot pass on an input and its end; run the command without --stdin"
            );
        };
        piece = piece.get(written..).unwrap_or_default();
        if piece.is_empty() {
            return Ok(true);
        }
    }
}

/// Our standard input in pieces, and an empty one at its end. A thread reads it: reading a terminal cannot be
/// taken back, and the process does not wait for the thread.
pub(super) fn standard_input() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; INPUT];
        loop {
            let length = match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
                Ok(length) => length,
            };
            if pieces.blocking_send(buffer[..length].to_vec()).is_err() || length == 0 {
                return;
            }
        }
    });
    receiver
}

/// Prints on a thread of its own: whoever reads our output may take his time, and signals do not wait for him.
fn print(stdout: Vec<u8>, stderr: Vec<u8>) -> JoinHandle<io::Result<()>> {
    tokio::task::spawn_blocking(move || {
        pass(&mut io::stdout().lock(), &stdout)?;
        pass(&mut io::stderr().lock(), &stderr)
    })
}

fn pass(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    out.write_all(bytes)?;
    out.flush()
}

fn exit_code(command: &CommandState) -> u8 {
    command.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN)
}
