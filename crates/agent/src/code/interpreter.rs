//! One interpreter that keeps its state: Python or Node.js with a small driver, asked over a pipe.
//!
//! Requests and answers are lines of JSON on descriptors of their own (100, 101), so nothing the
//! code prints can disturb them. An answer comes in several lines: outputs as they are made, so that
//! they are known however the code ends, and last how it ended. What its subprocesses and forked
//! children print arrives on ordinary pipes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::stray::Stray;
use crate::kills::Watch;
use crate::process::tree::{self, Stat};
use crate::process::{Exit, Family, Launch, Started, ended};
use crate::shell::Surroundings;

const PYTHON_DRIVER: &str = include_str!("driver.py");
/// Comes before the Python driver where a Jupyter kernel is to answer.
const KERNEL_DRIVER: &str = include_str!("kernel.py");
const NODE_DRIVER: &str = include_str!("driver.js");
const REQUEST_FD: i32 = 100;
const ANSWER_FD: i32 = 101;
/// Longest answer of a driver, which bounds its own output at 2 MiB of text besides images.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Outputs of one answer; pieces of one stream that follow each other are one.
const MOST_OUTPUTS: usize = 20_000;
/// How long interrupted Python code may take to stop.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);
/// How long what an interpreter said may take to be read when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    Python,
    Javascript,
}

impl Language {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Javascript => "node",
        }
    }

    pub(crate) fn kernel(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Javascript => "javascript",
        }
    }
}

/// Who answers in a session of Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// Our driver: starts in milliseconds.
    Driver,
    /// ipykernel when the image has it, else our driver.
    Kernel,
}

/// What running a piece of code gave.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) status: String,
    pub(crate) exit_code: i32,
    pub(crate) execution_count: Option<u64>,
    pub(crate) outputs: Vec<Value>,
    /// What the caller should know, in sentences.
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
}

/// One line of an answer.
#[derive(Deserialize)]
struct Line {
    /// How the code ended, in the last line.
    status: Option<String>,
    #[serde(default)]
    exit_code: i32,
    execution_count: Option<u64>,
    outputs: Vec<Value>,
}

/// What of an answer has come.
#[derive(Default)]
struct Coming {
    /// The beginning of a line.
    line: Vec<u8>,
    bytes: usize,
    outputs: Vec<Value>,
}

impl Coming {
    fn take(&mut self, outputs: Vec<Value>) -> io::Result<()> {
        for output in outputs {
            if let Some(last) = self.outputs.last_mut()
                && let (Some(text), true) = (output["text"].as_str(), last["name"] == output["name"])
                && let Some(Value::String(known)) = last.get_mut("text")
            {
                known.push_str(text);
                continue;
            }
            if self.outputs.len() >= MOST_OUTPUTS {
                return Err(io::Error::other(format!("more than {MOST_OUTPUTS} outputs")));
            }
            self.outputs.push(output);
        }
        Ok(())
    }
}

impl Outcome {
    fn failed(status: &str, exit_code: i32, name: &str, value: &str) -> Self {
        let error = json!({ "output_type": "error", "ename": name, "evalue": value, "traceback": [format!("{name}: {value}")] });
        Self {
            status: status.to_owned(),
            exit_code,
            execution_count: None,
            outputs: vec![error],
            notes: Vec::new(),
        }
    }

    /// The notes, and one more, as one text.
    pub(crate) fn hint(&self, more: Option<String>) -> Option<String> {
        let notes: Vec<String> = self.notes.iter().cloned().chain(more).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The text of one stream, all pieces joined.
    pub(crate) fn stream(&self, name: &str) -> String {
        let pieces = self.outputs.iter().filter(|output| output["name"] == name);
        pieces.filter_map(|output| output["text"].as_str()).collect()
    }

    pub(crate) fn traceback(&self) -> Vec<String> {
        let error = self.outputs.iter().find(|output| output["output_type"] == "error");
        let lines = error.and_then(|error| error["traceback"].as_array());
        lines.into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)).collect()
    }
}

pub(crate) struct Interpreter {
    language: Language,
    answerer: Answerer,
    pid: Pid,
    /// It, and all that it starts.
    family: Family,
    surroundings: Arc<Surroundings>,
    exited: watch::Receiver<Option<Exit>>,
    requests: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    stray: Arc<Stray>,
    /// How much of that was answered.
    told: [u64; 2],
    coming: Coming,
    leaves_children: bool,
    /// A call that went away before its answer came, so the next answer is not for the next call.
    out_of_step: bool,
}

impl Interpreter {
    pub(crate) async fn start(
        language: Language,
        answerer: Answerer,
        directory: PathBuf,
        program: PathBuf,
        surroundings: &Arc<Surroundings>,
    ) -> io::Result<Self> {
        let shared = Arc::clone(surroundings);
        let launched =
            surroundings.pool.run(move || launch(language, answerer, &directory, &program, &shared)).await;
        let (started, ends) = launched.map_err(|error| io::Error::other(error.message().to_owned()))??;
        let [requests, answers, stdout, stderr] = ends;
        let stray = Stray::read(stdout, stderr, &surroundings.budget)?;
        Ok(Self {
            language,
            answerer,
            pid: started.pid,
            family: started.family,
            surroundings: Arc::clone(surroundings),
            exited: started.exited,
            requests: pipe::Sender::from_owned_fd(requests)?,
            answers: BufReader::new(pipe::Receiver::from_owned_fd(answers)?),
            stray,
            told: [0; 2],
            coming: Coming::default(),
            leaves_children: false,
            out_of_step: false,
        })
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.exited.borrow().is_none() && !self.out_of_step
    }

    /// Runs `code`. After a time-out or a crash the interpreter is not usable again.
    pub(crate) async fn run(&mut self, code: &str, directory: Option<&Path>, limit: Duration) -> Outcome {
        let request = json!({ "code": code, "cwd": directory }).to_string() + "\n";
        let (memory, began) = (self.surroundings.kills.watch(), tree::ticks());
        self.out_of_step = true;
        self.coming = Coming::default();
        let mut outcome = match tokio::time::timeout(limit, self.ask(&request)).await {
            Ok(Ok(outcome)) => {
                self.out_of_step = false;
                outcome
            }
            Ok(Err(error)) => self.crashed(&error, &memory).await,
            Err(_) => self.timed_out(limit, began).await,
        };
        if outcome.notes.is_empty() {
            let verdict = memory.verdict(Some(outcome.exit_code));
            outcome.notes.extend(verdict.map(|verdict| verdict.text));
        }
        for (name, text) in ["stdout", "stderr"].into_iter().zip(self.stray.since(&mut self.told)) {
            if !text.is_empty() {
                outcome.outputs.push(json!({ "output_type": "stream", "name": name, "text": text }));
            }
        }
        outcome
    }

    async fn ask(&mut self, request: &str) -> io::Result<Outcome> {
        self.requests.write_all(request.as_bytes()).await?;
        let mut exited = self.exited.clone();
        tokio::select! {
            answer = self.answer() => answer,
            // Its children may hold the pipe open. What it said before its end lies in there.
            _ = ended(&mut exited) => {
                let rest = tokio::time::timeout(LAST_WORDS, self.answer()).await;
                rest.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }

    /// The rest of an answer. What has come stays when the caller goes on waiting later.
    async fn answer(&mut self) -> io::Result<Outcome> {
        loop {
            let room = (ANSWER_BYTES - self.coming.bytes).saturating_sub(self.coming.line.len());
            let mut answers = (&mut self.answers).take(room as u64);
            answers.read_until(b'\n', &mut self.coming.line).await?;
            if !self.coming.line.ends_with(b"\n") {
                let full = self.coming.bytes + self.coming.line.len() >= ANSWER_BYTES;
                return Err(if full {
                    io::Error::other(format!("the outputs take more than {ANSWER_BYTES} bytes"))
                } else {
                    io::ErrorKind::UnexpectedEof.into()
                });
            }
            let line: Line = serde_json::from_slice(&self.coming.line).map_err(io::Error::other)?;
            self.coming.bytes += self.coming.line.len();
            self.coming.line.clear();
            self.coming.take(line.outputs)?;
            if let Some(status) = line.status {
                return Ok(Outcome {
                    status,
                    exit_code: line.exit_code,
                    execution_count: line.execution_count,
                    outputs: std::mem::take(&mut self.coming.outputs),
                    notes: Vec::new(),
                });
            }
        }
    }

    /// An outcome of ours, after what the code has told.
    fn failed(&mut self, status: &str, exit_code: i32, name: &str, value: &str) -> Outcome {
        let mut outcome = Outcome::failed(status, exit_code, name, value);
        let mut outputs = std::mem::take(&mut self.coming.outputs);
        outputs.append(&mut outcome.outputs);
        Outcome { outputs, ..outcome }
    }

    async fn crashed(&mut self, error: &io::Error, memory: &Watch) -> Outcome {
        let exit = tokio::time::timeout(LAST_WORDS, ended(&mut self.exited)).await.ok().flatten();
        let verdict = exit.and_then(|exit| memory.verdict(Some(exit.shell_code())));
        self.end().await;
        let exit = tokio::time::timeout(INTERRUPT_GRACE, ended(&mut self.exited)).await.ok().flatten();
        let code = exit.map_or(1, Exit::shell_code);
        let why = verdict.as_ref().map_or_else(|| error.to_string(), |verdict| verdict.text.clone());
        let reason = format!("the interpreter ended (exit code {code}; {why}); its state is lost");
        let mut outcome = self.failed("error", code, "InterpreterDied", &reason);
        outcome.notes.extend(verdict.map(|verdict| verdict.text));
        outcome
    }

    async fn timed_out(&mut self, limit: Duration, began: u64) -> Outcome {
        if self.language == Language::Python {
            self.surroundings.reaper.signal(self.pid, Signal::INT);
            if let Ok(Ok(outcome)) = tokio::time::timeout(INTERRUPT_GRACE, self.answer()).await {
                self.out_of_step = false;
                self.end_what_began(began).await;
                return Outcome { status: "timeout".to_owned(), exit_code: 124, ..outcome };
            }
        }
        self.end().await;
        let reason =
            format!("the code ran longer than {} s; the state of its session is lost", limit.as_secs_f64());
        self.failed("timeout", 124, "TimeoutError", &reason)
    }

    /// Ends it and all that it has started.
    async fn end(&self) {
        let family = self.family.clone();
        // A pool that is overrun has this left undone; dropping the interpreter comes back to it.
        let _ = self.surroundings.pool.run(move || family.end()).await;
    }

    /// Ends what was started since, but for the interpreter: its state is kept.
    async fn end_what_began(&self, since: u64) {
        let (family, own, answerer) = (self.family.clone(), self.pid.as_raw_nonzero().get(), self.answerer);
        let end = move || {
            family.end_those(|members| {
                let ours = |member: &Stat| {
                    member.pid == own
                        || answerer == Answerer::Kernel && member.parent == own && is_kernel(member.pid)
                };
                members.iter().filter(|member| member.started >= since && !ours(member)).copied().collect()
            })
        };
        let _ = self.surroundings.pool.run(end).await;
    }
}

/// Whether it is the kernel that the driver has started, at the first code. Where ipykernel is not installed there is
/// none, and the children of the driver are the code's.
fn is_kernel(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"ipykernel_launcher")
}

impl Interpreter {
    /// Ends it alone: what its code has started goes on, and its output is read and dropped.
    pub(crate) fn leave(self) {
        // Nobody asks it any more, and it holds nothing that has to be put in order.
        self.surroundings.reaper.signal(self.pid, Signal::KILL);
        let mut left = self;
        left.leaves_children = true;
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        if !self.leaves_children && !self.family.is_gone() {
            let family = self.family.clone();
            self.surroundings.pool.leave(move || {
                family.end();
            });
        }
        self.stray.discard();
    }
}

type Ends = [std::os::fd::OwnedFd; 4];

fn launch(
    language: Language,
    answerer: Answerer,
    directory: &Path,
    program: &Path,
    surroundings: &Surroundings,
) -> io::Result<(Started, Ends)> {
    let (request_read, requests) = pipe_with(PipeFlags::CLOEXEC)?;
    let (answers, answer_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
    for fd in [&requests, &answers, &stdout, &stderr] {
        rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::NONBLOCK)?;
    }
    let mut command = Command::new(program);
    match (language, answerer) {
        (Language::Python, Answerer::Driver) => command.args(["-u", "-c", PYTHON_DRIVER]),
        (Language::Python, Answerer::Kernel) => {
            command.args(["-u", "-c", &format!("{KERNEL_DRIVER}\n{PYTHON_DRIVER}")])
        }
        (Language::Javascript, _) => command.args(["-e", NODE_DRIVER]),
    };
    command.current_dir(directory).env_clear();
    command.envs(surroundings.environment.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::from(stdout_write)).stderr(Stdio::from(stderr_write));
    let mut launch = Launch::new(command);
    launch.pass = vec![(request_read, REQUEST_FD), (answer_write, ANSWER_FD)];
    Ok((launch.start(&surroundings.reaper)?, [requests, answers, stdout, stderr]))
}
