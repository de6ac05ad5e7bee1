//! How the agent is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{TICKET_LIFE, TokenKey};
use crate::extras::hooks::EnvironmentHooks;
use crate::http::guard::KnownHosts;
use crate::shell::registry::MAX_SESSIONS;

/// Settings of one agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Home directory of commands; relative paths of file calls start here.
    pub home: PathBuf,
    /// Where sessions start.
    pub workspace: PathBuf,
    /// Shell sessions at once.
    pub max_shell_sessions: usize,
    /// Time between a request to end and the end.
    pub grace: Duration,
    /// Host names the agent answers to, besides those it always does.
    pub hosts: KnownHosts,
    /// A descriptor left open for the agent: it writes one byte to it once it listens, and closes it.
    pub ready_fd: Option<i32>,
    /// Descriptors left open for the agent: each command writes `0` to all of them before it begins.
    pub command_cgroup_fds: Vec<i32>,
    /// Commands that run at the start and before the end.
    pub hooks: EnvironmentHooks,
    /// The key of the tokens that callers need. `None`: they need none.
    pub token_key: Option<TokenKey>,
    /// How long a ticket is valid.
    pub ticket_life: Duration,
    /// Why files can be read and nothing else.
    pub only_reads: Option<String>,
}

/// A setting that is wrong: which, what was given, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {value:?} {problem}")]
pub struct OptionsError {
    setting: String,
    value: String,
    problem: &'static str,
}

/// What the command line asked for.
#[derive(Debug)]
pub enum Parsed {
    /// Run with these settings.
    Run(Box<Options>),
    /// Do this and end.
    SetUp(SetUp),
    /// Print this and end.
    Print(&'static str),
}

/// What is done before a sandbox starts, by an init container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// Copy the program into this directory.
    pub install: Option<PathBuf>,
    /// Open this directory of user data to all users, as far as it is new.
    pub user_data: Option<PathBuf>,
}

const HELP: &str = "\
The Stockade sandbox agent: the AIO sandbox HTTP API.

Usage: stockade-agent [--listen ADDRESS:PORT] [--home DIR] [--grace SECONDS] [--allow-host NAMES]
                      [--ready-fd N] [--command-cgroup-fd N]... [--only-reads WHY]
       stockade-agent [--install DIR] [--open-user-data DIR]

  --listen ADDRESS:PORT  where the API listens (default 0.0.0.0:8080; SANDBOX_SRV_PORT sets the port)
  --home DIR             home directory of commands (default $WORKSPACE, else $HOME, else /)
  --grace SECONDS        time for commands to end after SIGTERM (default 5)
  --allow-host NAMES     host names to answer to, comma-separated (also STOCKADE_ALLOWED_HOSTS)
  --ready-fd N           write a byte to this descriptor once the API listens
  --command-cgroup-fd N  commands write 0 to this descriptor, a control group's, before they begin
  --only-reads WHY       show files, run and change nothing; other calls are refused and told why
  --install DIR          copy this program to DIR/stockade-agent and end
  --open-user-data DIR   let every user write to this directory, if the kubelet has made it just now, and end

MAX_SHELL_SESSIONS sets how many shell sessions there may be (default 128).
JWT_PUBLIC_KEY (an RSA public key: PEM, or base64 of it) makes every call need a token signed with RS256;
TICKET_TTL_SECONDS is how long a ticket from POST /tickets stands for one (default 30).
";

const DEFAULT_GRACE: Duration = Duration::from_secs(5);

impl Options {
    /// Reads the command line (without the program's name) and the environment, which `variable` looks up.
    ///
    /// # Errors
    /// A setting that is wrong or unknown.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Parsed, OptionsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut listen = None;
        let mut home = None;
        let mut grace = DEFAULT_GRACE;
        let mut ready_fd = None;
        let mut set_up = SetUp::default();
        let mut command_cgroup_fds = Vec::new();
        let mut only_reads = None;
        let mut hosts = KnownHosts::parse(&variable("STOCKADE_ALLOWED_HOSTS").unwrap_or_default());
        hosts.add(&variable("NODE_HOST").unwrap_or_default());
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            match name.as_str() {
                "-h" | "--help" => return Ok(Parsed::Print(HELP)),
                "-V" | "--version" => return Ok(Parsed::Print(concat!(env!("CARGO_PKG_VERSION"), "\n"))),
                "--listen"
                | "--home"
                | "--grace"
                | "--allow-host"
                | "--ready-fd"
                | "--command-cgroup-fd"
                | "--only-reads"
                | "--install"
                | "--open-user-data" => {}
                _ => return Err(wrong("argument", &name, "is not known; see --help")),
            }
            let Some(value) = inline.or_else(|| arguments.next()) else {
                return Err(wrong(&name, "", "needs a value"));
            };
            match name.as_str() {
                "--listen" => listen = Some(parse_address(&name, &value)?),
                "--home" => home = Some(value),
                "--grace" => grace = parse_seconds(&name, &value)?,
                "--ready-fd" => ready_fd = Some(parse_descriptor(&name, &value)?),
                "--command-cgroup-fd" => command_cgroup_fds.push(parse_descriptor(&name, &value)?),
                "--only-reads" => only_reads = Some(value),
                "--install" | "--open-user-data" if value.is_empty() => {
                    return Err(wrong(&name, &value, "is not a directory"));
                }
                "--install" => set_up.install = Some(PathBuf::from(value)),
                "--open-user-data" => set_up.user_data = Some(PathBuf::from(value)),
                _ => hosts.add(&value),
            }
        }
        if set_up != SetUp::default() {
            return Ok(Parsed::SetUp(set_up));
        }
        let listen = match (listen, variable("SANDBOX_SRV_PORT")) {
            (Some(listen), _) => listen,
            (None, Some(port)) => match port.parse() {
                Ok(port) => SocketAddr::from(([0, 0, 0, 0], port)),
                Err(_) => return Err(wrong("SANDBOX_SRV_PORT", &port, "is not a port from 1 to 65535")),
            },
            (None, None) => SocketAddr::from(([0, 0, 0, 0], 8080)),
        };
        let max_shell_sessions = match variable("MAX_SHELL_SESSIONS") {
            None => MAX_SESSIONS,
            Some(value) => match value.trim().parse::<usize>() {
                Ok(count) if count > 0 => count,
                _ => return Err(wrong("MAX_SHELL_SESSIONS", &value, "is not a number above 0")),
            },
        };
        let hooks = match &only_reads {
            // Nothing is run, neither at the start nor at the end.
            Some(_) => EnvironmentHooks::default(),
            None => EnvironmentHooks::read(variable)
                .map_err(|(setting, value, problem)| wrong(setting, &value, problem))?,
        };
        let token_key = variable("JWT_PUBLIC_KEY").map(|key| parse_key(&key)).transpose()?;
        let ticket_life = match variable("TICKET_TTL_SECONDS") {
            None => TICKET_LIFE,
            Some(value) => parse_ticket_life(&value)?,
        };
        let home = home.or_else(|| variable("WORKSPACE")).or_else(|| variable("HOME"));
        let home = PathBuf::from(home.unwrap_or_else(|| "/".to_owned()));
        if !home.is_absolute() {
            return Err(wrong("--home", &home.to_string_lossy(), "is not an absolute path"));
        }
        let workspace = home.clone();
        Ok(Parsed::Run(Box::new(Self {
            listen,
            home,
            workspace,
            max_shell_sessions,
            grace,
            hosts,
            ready_fd,
            command_cgroup_fds,
            hooks,
            token_key,
            ticket_life,
            only_reads,
        })))
    }
}

fn parse_address(setting: &str, value: &str) -> Result<SocketAddr, OptionsError> {
    value.parse().map_err(|_| wrong(setting, value, "is not an address and port such as 127.0.0.1:8080"))
}

fn parse_seconds(setting: &str, value: &str) -> Result<Duration, OptionsError> {
    let seconds = value.parse::<f64>().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| wrong(setting, value, "is not a number of seconds from 0 to 3600"))
}

/// Those below 3 are standard input, output and error.
fn parse_descriptor(setting: &str, value: &str) -> Result<i32, OptionsError> {
    let number = value.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| wrong(setting, value, "is not the number of a descriptor, from 3"))
}

fn parse_key(value: &str) -> Result<TokenKey, OptionsError> {
    let shown: String = value.chars().take(30).collect();
    TokenKey::parse(value).map_err(|problem| wrong("JWT_PUBLIC_KEY", &shown, problem))
}

fn parse_ticket_life(value: &str) -> Result<Duration, OptionsError> {
    let seconds = value.trim().parse::<u64>().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| wrong("TICKET_TTL_SECONDS", value, "is not a number of seconds from 1 to 3600"))
}

fn wrong(setting: &str, value: &str, problem: &'static str) -> OptionsError {
    OptionsError { setting: setting.to_owned(), value: value.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Parsed, OptionsError> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Options::parse(arguments.iter().map(|a| (*a).to_owned()), find)
    }

    #[test]
    fn settings_come_from_arguments_and_environment() {
        let Parsed::Run(options) =
            parse(&["--listen", "127.0.0.1:1", "--home=/srv"], &[("MAX_SHELL_SESSIONS", "7")]).unwrap()
        else {
            panic!("not run")
        };
        assert_eq!(options.listen.to_string(), "127.0.0.1:1");
        assert_eq!(options.home, PathBuf::from("/srv"));
        assert_eq!(options.max_shell_sessions, 7);
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value() {
        for (arguments, variables, expect) in [
            (vec!["--listen", "here"], vec![], "--listen: \"here\" is not an address"),
            (vec!["--port"], vec![], "argument: \"--port\" is not known"),
            (vec![], vec![("MAX_SHELL_SESSIONS", "0")], "MAX_SHELL_SESSIONS: \"0\" is not a number above 0"),
            (vec!["--home", "x"], vec![], "--home: \"x\" is not an absolute path"),
            (vec![], vec![("JWT_PUBLIC_KEY", "x")], "JWT_PUBLIC_KEY: \"x\" is neither"),
            (vec![], vec![("TICKET_TTL_SECONDS", "0")], "TICKET_TTL_SECONDS: \"0\" is not"),
            (vec!["--home"], vec![], "--home: \"\" needs a value"),
            (vec!["--ready-fd", "1"], vec![], "--ready-fd: \"1\" is not the number of a descriptor"),
        ] {
            let message = parse(&arguments, &variables).unwrap_err().to_string();
            assert!(message.starts_with(expect), "{message}");
        }
    }
}
