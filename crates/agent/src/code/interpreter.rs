//! One interpreter that keeps its state: Python or Node.js with a small driver, asked over a pipe.
//!
//! Requests and answers are lines of JSON on descriptors of their own (100, 101), so nothing the
//! code prints can disturb them. What its subprocesses print arrives on ordinary pipes.

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
use crate::process::{Exit, Launch, Started, ended, tree};
use crate::shell::Surroundings;

const PYTHON_DRIVER: &str = include_str!("driver.py");
/// Comes before the Python driver where a Jupyter kernel is to answer.
const KERNEL_DRIVER: &str = include_str!("kernel.py");
const NODE_DRIVER: &str = include_str!("driver.js");
const REQUEST_FD: i32 = 100;
const ANSWER_FD: i32 = 101;
/// Longest answer of a driver, which bounds its own output at 2 MiB of text besides images.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// How long interrupted Python code may take to stop.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);

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
}

impl Outcome {
    fn failed(status: &str, exit_code: i32, name: &str, value: &str) -> Self {
        let error = json!({ "output_type": "error", "ename": name, "evalue": value, "traceback": [format!("{name}: {value}")] });
        Self { status: status.to_owned(), exit_code, execution_count: None, outputs: vec![error] }
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
    pid: Pid,
    exited: watch::Receiver<Option<Exit>>,
    requests: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    stray: Arc<Stray>,
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
            pid: started.pid,
            exited: started.exited,
            requests: pipe::Sender::from_owned_fd(requests)?,
            answers: BufReader::new(pipe::Receiver::from_owned_fd(answers)?),
            stray,
            out_of_step: false,
        })
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.exited.borrow().is_none() && !self.out_of_step
    }

    /// Runs `code`. After a time-out or a crash the interpreter is not usable again.
    pub(crate) async fn run(&mut self, code: &str, directory: Option<&Path>, limit: Duration) -> Outcome {
        let before = self.stray.totals();
        let request = json!({ "code": code, "cwd": directory }).to_string() + "\n";
        self.out_of_step = true;
        let mut outcome = match tokio::time::timeout(limit, self.ask(&request)).await {
            Ok(Ok(outcome)) => {
                self.out_of_step = false;
                outcome
            }
            Ok(Err(error)) => self.crashed(&error).await,
            Err(_) => self.timed_out(limit).await,
        };
        for (name, text) in ["stdout", "stderr"].into_iter().zip(self.stray.since(before)) {
            if !text.is_empty() {
                outcome.outputs.push(json!({ "output_type": "stream", "name": name, "text": text }));
            }
        }
        outcome
    }

    async fn ask(&mut self, request: &str) -> io::Result<Outcome> {
        self.requests.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Outcome> {
        let mut line = Vec::new();
        (&mut self.answers).take(ANSWER_BYTES).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }

    async fn crashed(&mut self, error: &io::Error) -> Outcome {
        self.kill();
        let exit = tokio::time::timeout(INTERRUPT_GRACE, ended(&mut self.exited)).await.ok().flatten();
        let code = exit.map_or(1, Exit::shell_code);
        let reason = format!("the interpreter ended (exit code {code}; {error}); its state is lost");
        Outcome::failed("error", code, "InterpreterDied", &reason)
    }

    async fn timed_out(&mut self, limit: Duration) -> Outcome {
        if self.language == Language::Python {
            let _ = rustix::process::kill_process(self.pid, Signal::INT);
            if let Ok(Ok(outcome)) = tokio::time::timeout(INTERRUPT_GRACE, self.answer()).await {
                self.out_of_step = false;
                return Outcome { status: "timeout".to_owned(), exit_code: 124, ..outcome };
            }
        }
        self.kill();
        let reason =
            format!("the code ran longer than {} s; the state of its session is lost", limit.as_secs_f64());
        Outcome::failed("timeout", 124, "TimeoutError", &reason)
    }

    fn kill(&self) {
        tree::signal_session(self.pid, Signal::KILL);
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        if self.exited.borrow().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
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
