//! The commands that talk to a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use stockade_api::query::{DEFAULT_TAIL, LogQuery, MAX_TAIL};
use stockade_api::{CreateSandbox, NetworkRequest, QuantityPair, ResourceRequest};

use super::mk_small_runtime;
use super::serve::absolute;
use crate::machine;
use crate::remote::agent::Agent;
use crate::remote::cut::Before;
use crate::remote::{self, Server, ServerOptions, create, exec, logs, sandboxes, shell};
use crate::settings::env_file;

/// Which server, and with which key.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct Connection {
    /// The server [default: the one that `stockade up` runs on this machine; variable: STOCKADE_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with the API key [default: the variable PROVISIONER_API_KEY, else the key in the state directory
    /// when the server is on this machine]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The state directory of the server on this machine [default: /var/lib/stockade for root, else
    /// ~/.local/state/stockade; variable: STOCKADE_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Connection {
    fn options(self) -> anyhow::Result<ServerOptions> {
        let state_dir = absolute(self.state_dir)?;
        Ok(ServerOptions { url: self.url, key_file: self.key_file, state_dir })
    }
}

/// Runs a command that talks to a server, once that serves. The process does not wait for threads that read a terminal.
fn with_server(
    connection: Connection,
    command: impl AsyncFnOnce(Server) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let options = connection.options()?;
    let runtime = mk_small_runtime()?;
    let result =
        runtime.block_on(async { command(remote::find(&options, &machine::surroundings()).await?).await });
    runtime.shutdown_background();
    result
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Named {
    pub(super) fn pause(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| {
            sandboxes::pause(&server, &self.id, true, self.json).await
        })
    }

    pub(super) fn resume(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| {
            sandboxes::pause(&server, &self.id, false, self.json).await
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| sandboxes::list(&server, self.json).await)
    }
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| sandboxes::get(&server, &self.id, self.json).await)
    }
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The sandboxes
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Print JSON, one object for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Remove {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| sandboxes::remove(&server, &self.ids, self.json).await)
    }
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its id: a-z, 0-9 and `-` [default: eight random hexadecimal digits]
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Wait until it is ready, at most 25 s
    #[arg(long, short)]
    wait: bool,
    /// Whose it is [default: default]
    #[arg(long)]
    user: Option<String>,
    /// The conversation it belongs to [default: its id]
    #[arg(long)]
    thread: Option<String>,
    /// A variable of its environment; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file of variables, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// The most processors it may use: 2, 0.5, 500m
    #[arg(long, value_name = "PROCESSORS")]
    cpu: Option<String>,
    /// The most memory it may use: 512Mi, 1.5Gi
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// The most bytes of files outside its mounts: 512Mi, 4Gi
    #[arg(long, value_name = "BYTES")]
    storage: Option<String>,
    /// What it may reach
    #[arg(long)]
    network: Option<Network>,
    /// What it may reach beyond that: 10.1.0.0/16, 192.0.2.7/32:443, :8080; may be given several times
    #[arg(long, value_name = "DESTINATION", requires = "network")]
    allow: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What a sandbox may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Its own loopback.
    Isolated,
    /// The internet, and no private addresses.
    Open,
    /// What --allow names.
    Allowlist,
}

impl Create {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut env = match &self.env_file {
            Some(path) => read_env_file(path)?,
            None => BTreeMap::new(),
        };
        env.extend(read_variables(&self.env)?);
        let network = self.network.map(|mode| NetworkRequest {
            mode: match mode {
                Network::Isolated => "isolated",
                Network::Open => "open",
                Network::Allowlist => "allowlist",
            }
            .to_owned(),
            allow: self.allow,
        });
        let request = CreateSandbox {
            user_id: self.user,
            thread_id: self.thread,
            env,
            resources: resources(self.cpu, self.memory, self.storage),
            network,
            ..CreateSandbox::new(self.id.map_or_else(create::random_id, Ok)?)
        };
        let (wait, json) = (self.wait, self.json);
        with_server(self.connection, async |server| create::run(&server, &request, wait, json).await)
    }
}

/// The limits that were asked for; `None` leaves all of them to the server.
fn resources(
    cpu: Option<String>,
    memory: Option<String>,
    storage: Option<String>,
) -> Option<ResourceRequest> {
    let is_asked = cpu.is_some() || memory.is_some() || storage.is_some();
    let limit = |limit| QuantityPair { request: None, limit };
    is_asked.then(|| ResourceRequest {
        cpu: limit(cpu),
        memory: limit(memory),
        ephemeral_storage: limit(storage),
    })
}

fn read_env_file(path: &std::path::Path) -> anyhow::Result<BTreeMap<String, String>> {
    let read = (machine::surroundings().read_file)(path);
    let text = read.map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    env_file::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Variables from the command line. A value is not repeated when it is wrong: it may be a secret.
fn read_variables(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (position, text) in pairs.iter().enumerate() {
        match env_file::pair(text) {
            Ok((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
            Err(expected) => match text.split_once('=') {
                Some((name, _)) => bail!("--env {name:?} {expected}"),
                // It may be a value without its name.
                None => bail!("--env number {} {expected}", position + 1),
            },
        }
    }
    Ok(variables)
}

/// Run a command in a sandbox
///
/// Standard output and standard error are the command's, and so is the exit status. Ctrl-C interrupts the command; the
/// second time it is asked to end, the third time it is killed. Without --stdin the command reads an empty input.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// The command and its arguments, as they are: no shell looks at them
    #[arg(value_name = "COMMAND", required = true, last = true)]
    words: Vec<String>,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Where it runs [default: the sandbox's workspace]
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// A variable of its environment; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Exec {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let order = exec::Order {
            words: self.words,
            directory: self.workdir,
            environment: read_variables(&self.env)?,
            with_input: self.stdin,
        };
        with_server(self.connection, async |server| {
            let sandbox = server.sandbox_to_enter(&self.id).await?;
            let before = Before::of_sandbox(&sandbox);
            match exec::run(Agent::new(&sandbox.sandbox_url), order).await {
                Err(error) if !super::is_closed_pipe(&error) => Err(before.explain(&server, error).await),
                ended => ended,
            }
        })
    }
}

/// Open a terminal in a sandbox
///
/// It ends with its shell, whose exit status it passes on, or with the keys `~.` at the beginning of a line.
#[derive(Debug, Args)]
pub(super) struct Shell {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connection: Connection,
}

impl Shell {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        with_server(self.connection, async |server| {
            let sandbox = server.sandbox_to_enter(&self.id).await?;
            let before = Before::of_sandbox(&sandbox);
            match shell::run(&sandbox.sandbox_url).await {
                Ok(Some(code)) => Ok(code),
                // It was closed and nobody said how the shell ended.
                Ok(None) => match before.what_happened(&server).await {
                    Some(why) => bail!(why),
                    None => Ok(ExitCode::SUCCESS),
                },
                Err(error) if super::is_closed_pipe(&error) => Err(error),
                Err(error) => Err(before.explain(&server, error).await),
            }
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// Keep printing what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with
    #[arg(long, value_name = "LINES", default_value_t = DEFAULT_TAIL, value_parser = clap::value_parser!(u32).range(0..=MAX_TAIL))]
    tail: u32,
    /// Of the process before the last restart
    #[arg(long)]
    previous: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Logs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let query = LogQuery { follow: self.follow, tail: self.tail, previous: self.previous };
        with_server(self.connection, async |server| logs::run(&server, &self.id, query).await)
    }
}
