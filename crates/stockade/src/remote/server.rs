//! Which server to talk to, and with which key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use http::Uri;
use secrecy::SecretString;
use stockade_api::client::{Client, ClientError};
use stockade_api::{FieldError, Sandbox};
use thiserror::Error;

use super::quote;
use crate::own::OwnLine;
use crate::printable::printable;
use crate::settings::{STATE_DIR_VARIABLE, Surroundings, state_dir};
use crate::state::{self, StateDir};

/// Where a server of this machine listens when nobody says.
const DEFAULT_URL: &str = "http://127.0.0.1:8002";
const URL_VARIABLE: &str = "STOCKADE_URL";
const KEY_VARIABLE: &str = "PROVISIONER_API_KEY";

/// What the command line says about the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerOptions {
    pub(crate) url: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
}

/// A server to talk to.
pub(crate) struct Server {
    client: Client,
    url: String,
    /// Our own command line, to be repeated in advice.
    own: OwnLine,
    /// Where the key came from, for messages; `None` without one.
    key_from: Option<KeyFrom>,
    /// A key that is there and cannot be read, for messages.
    key_problem: Option<String>,
    /// Whether it was named, or has written down where it is.
    is_known: bool,
}

/// No server runs on the state directory that was named.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct NoServer(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyFrom {
    File(PathBuf),
    Variable,
}

impl Server {
    /// The server that is meant: of the command line, of the variable, or the one that runs on the state directory.
    ///
    /// # Errors
    /// When its address is none, the key that was named cannot be read, or no server runs on the directory that was
    /// named.
    pub(crate) fn find(options: &ServerOptions, surroundings: &Surroundings<'_>) -> anyhow::Result<Self> {
        let text = |name: &str| {
            (surroundings.variable)(name).and_then(|value| value.into_string().ok()).filter(|t| !t.is_empty())
        };
        let is_said = options.state_dir.is_some() || text(STATE_DIR_VARIABLE).is_some();
        let dir = state_dir(options.state_dir.clone(), surroundings.variable, surroundings.is_root);
        let dir = dir.ok().map(StateDir::at);
        let given = options.url.clone().or_else(|| text(URL_VARIABLE));
        let running = dir.as_ref().and_then(StateDir::server).map(|record| record.url);
        let own = own_line(options, given.as_deref());
        if let (true, None, None, Some(dir)) = (is_said, &given, &running, &dir) {
            let up = OwnLine::of_state_dir(dir.path()).line("up", "");
            bail!(NoServer(format!(
                "no server runs for {}; start one with `{up}`, or name another with --url or {URL_VARIABLE}",
                dir.path().display()
            )));
        }
        // Whoever listens at the usual address without our knowledge may be anybody.
        let is_known = given.is_some() || running.is_some();
        let url = given.or(running).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let mut key_problem = None;
        let (key, key_from) = if let Some(path) = &options.key_file {
            (Some(state::read_key(path)?), Some(KeyFrom::File(path.clone())))
        } else if let Some(key) = text(KEY_VARIABLE) {
            (Some(SecretString::from(key)), Some(KeyFrom::Variable))
        } else {
            // The key of this machine is for the server of this machine and for no other.
            let file = dir.filter(|_| is_known && is_loopback(&url)).map(|dir| dir.key_file());
            found_key(file.as_deref(), &mut key_problem)
        };
        let client = Client::new(&url, key.as_ref())?;
        Ok(Self { client, url, own, key_from, key_problem, is_known })
    }

    /// The client for it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Its address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it was named, or has written down where it is; else it was looked for where one usually is.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether it is on this machine, as far as its address tells.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(&self.url)
    }

    /// One of our own command lines that talks to the same server.
    pub(crate) fn line(&self, command: &str, rest: &str) -> String {
        self.own.line(command, rest)
    }

    /// The error as a person needs it: with what to do.
    pub(crate) fn explain(&self, error: ClientError) -> anyhow::Error {
        match error {
            ClientError::Unreachable { url, source } => anyhow!(
                "no answer from {url}: {}; is `{}` running? Another server is named with --url or {URL_VARIABLE}",
                innermost(&source),
                OwnLine::plain().line("up", "")
            ),
            // What the server would have to change is not what this caller can do.
            ClientError::Unauthorized => {
                anyhow!("{} does not accept this call: {}", self.url, self.about_key())
            }
            ClientError::Invalid { fields } => anyhow!("the request is not accepted:{}", all_of(&fields)),
            error => error.into(),
        }
    }

    fn about_key(&self) -> String {
        match (&self.key_from, &self.key_problem) {
            (Some(KeyFrom::File(path)), _) => {
                format!(
                    "it has another key than {}; name the file of its key with --key-file",
                    path.display()
                )
            }
            (Some(KeyFrom::Variable), _) => format!(
                "it has another key than the variable {KEY_VARIABLE}; set that to its key, or name the key's file \
                 with --key-file, which wins"
            ),
            (None, Some(problem)) => {
                format!("{problem}; name the key's file with --key-file, or set {KEY_VARIABLE}")
            }
            (None, None) => {
                format!("no key was found for it: name the key's file with --key-file, or set {KEY_VARIABLE}")
            }
        }
    }

    /// The sandbox of this id.
    ///
    /// # Errors
    /// When it is not there, or the server does not answer.
    pub(crate) async fn sandbox(&self, id: &str) -> anyhow::Result<Sandbox<'static>> {
        let found = self.client.get(id).await.map_err(|error| self.explain(error))?;
        found.with_context(|| self.no_such(id))
    }

    /// The sandbox of this id, for a command in it.
    ///
    /// # Errors
    /// As [`Self::sandbox`], and when it has ended for good: nothing would answer.
    pub(crate) async fn sandbox_to_enter(&self, id: &str) -> anyhow::Result<Sandbox<'static>> {
        let sandbox = self.sandbox(id).await?;
        if sandbox.status != "Failed" && sandbox.status != "Succeeded" {
            return Ok(sandbox);
        }
        let reason = sandbox.reason.as_ref().map(|reason| format!(" ({})", printable(reason)));
        let message = sandbox.message.as_ref().map(|message| format!(": {}", printable(message)));
        let word = quote::word(id);
        let (create, remove) = (self.line("create", &word), self.line("rm", &word));
        // The files of one that was evicted stay until somebody removes them.
        let next = match sandbox.reason.as_deref() {
            Some("Evicted") => {
                format!("its URL is {}; `{remove}` removes it", printable(&sandbox.sandbox_url))
            }
            _ => format!("`{create}` starts a fresh one in its place, `{remove}` removes it"),
        };
        bail!(
            "sandbox {id:?} is {}{}{}; {next}",
            printable(&sandbox.status),
            reason.unwrap_or_default(),
            message.unwrap_or_default(),
        );
    }

    /// That there is no such sandbox.
    pub(crate) fn no_such(&self, id: &str) -> String {
        format!("there is no sandbox {id:?} at {}; `{}` lists those there are", self.url, self.line("ls", ""))
    }
}

/// Our own command line with the same answers to which server and which key.
fn own_line(options: &ServerOptions, url: Option<&str>) -> OwnLine {
    let mut own = options.state_dir.as_deref().map_or_else(OwnLine::plain, OwnLine::of_state_dir);
    if let Some(url) = url {
        own = own.with("--url", url);
    }
    if let Some(path) = &options.key_file {
        own = own.with("--key-file", &path.to_string_lossy());
    }
    own
}

/// What went wrong at the bottom: what lies above are layers of a library.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(below) = error.source() {
        error = below;
    }
    error.to_string()
}

/// Every wrong field, one a line when there are several.
fn all_of(fields: &[FieldError]) -> String {
    let line = |field: &FieldError| {
        let place: Vec<String> = field.loc.iter().skip(1).map(ToString::to_string).collect();
        let text = printable(&format!("{}: {}", place.join("."), field.msg));
        if fields.len() == 1 { format!(" {text}") } else { format!("\n  {text}") }
    };
    fields.iter().map(line).collect()
}

fn found_key(file: Option<&Path>, problem: &mut Option<String>) -> (Option<SecretString>, Option<KeyFrom>) {
    let Some(file) = file.filter(|file| file.try_exists().unwrap_or(true)) else { return (None, None) };
    match state::read_key(file) {
        Ok(key) => (Some(key), Some(KeyFrom::File(file.to_owned()))),
        Err(error) => {
            *problem = Some(format!("{:#}", anyhow::Error::new(error)));
            (None, None)
        }
    }
}

/// Whether a URL leads to this machine and nowhere else.
fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn find(options: &ServerOptions, variables: &[(&str, &str)]) -> anyhow::Result<Server> {
        let lookup =
            |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| OsString::from(pair.1));
        let read_file = |_: &Path| unreachable!();
        Server::find(options, &Surroundings { variable: &lookup, read_file: &read_file, is_root: false })
    }

    #[test]
    fn the_server_is_said_or_the_one_of_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(find(&ServerOptions::default(), &[("HOME", home)]).unwrap().url, DEFAULT_URL);
        let by_variable = [("HOME", home), ("STOCKADE_URL", "http://far:1")];
        assert_eq!(find(&ServerOptions::default(), &by_variable).unwrap().url, "http://far:1");
        let state = StateDir::make(&dir.path().join("state")).unwrap();
        state.record_server("http://127.0.0.1:9").unwrap();
        let options = ServerOptions { state_dir: Some(state.path().to_owned()), ..ServerOptions::default() };
        assert_eq!(find(&options, &[]).unwrap().url, "http://127.0.0.1:9");
    }

    #[test]
    fn a_directory_without_a_server_leads_to_no_other_and_its_key_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::make(&dir.path().join("s p")).unwrap();
        state.make_key().unwrap();
        let path = state.path().to_str().unwrap();
        let options = ServerOptions { state_dir: Some(state.path().to_owned()), ..ServerOptions::default() };
        for found in [find(&options, &[]), find(&ServerOptions::default(), &[("STOCKADE_STATE_DIR", path)])] {
            let said = found.err().unwrap().to_string();
            assert!(said.contains(&format!("no server runs for {path}")), "{said}");
            assert!(said.contains(&format!("up --state-dir '{path}'")), "{said}");
        }
        // The usual directory leads to the usual address, without its key.
        let home = dir.path().to_str().unwrap();
        StateDir::make(&dir.path().join("stockade")).unwrap().make_key().unwrap();
        let usual = find(&ServerOptions::default(), &[("XDG_STATE_HOME", home)]).unwrap();
        assert_eq!((usual.url.as_str(), usual.key_from), (DEFAULT_URL, None));
    }

    #[test]
    fn all_wrong_fields_are_named() {
        let server =
            find(&ServerOptions { url: Some("http://h:1".into()), ..ServerOptions::default() }, &[]).unwrap();
        let field =
            |name: &str| serde_json::json!({"type": "x", "loc": ["body", name], "msg": "bad", "input": null});
        let fields = serde_json::from_value(serde_json::json!([field("a"), field("b")])).unwrap();
        let said = server.explain(ClientError::Invalid { fields }).to_string();
        assert_eq!(said, "the request is not accepted:\n  a: bad\n  b: bad");
        assert!(server.line("ls", "").ends_with("ls --url http://h:1"));
    }

    #[test]
    fn the_key_of_this_machine_goes_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::make(dir.path()).unwrap();
        state.make_key().unwrap();
        for (url, has_key) in [
            ("http://127.0.0.1:8002", true),
            ("http://[::1]:8002", true),
            ("http://localhost:8002", true),
            ("http://10.0.0.1:8002", false),
            ("http://127.0.0.1.evil.example:8002", false),
        ] {
            let options = ServerOptions {
                url: Some(url.to_owned()),
                state_dir: Some(dir.path().to_owned()),
                key_file: None,
            };
            assert_eq!(find(&options, &[]).unwrap().key_from.is_some(), has_key, "{url}");
            let said = find(&options, &[("PROVISIONER_API_KEY", "k")]).unwrap();
            assert_eq!(said.key_from, Some(KeyFrom::Variable), "{url}");
        }
    }

    #[test]
    fn a_key_file_that_was_named_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions { key_file: Some(dir.path().join("none")), ..ServerOptions::default() };
        assert!(find(&options, &[]).is_err());
    }
}
