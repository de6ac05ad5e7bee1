//! Which server to talk to, and with which key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use http::Uri;
use secrecy::SecretString;
use stockade_api::Sandbox;
use stockade_api::client::{Client, ClientError};

use crate::machine;
use crate::settings::{Surroundings, state_dir};
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
    /// Where the key came from, for messages; `None` without one.
    key_from: Option<String>,
    /// A key that is there and cannot be read, for messages.
    key_problem: Option<String>,
}

impl Server {
    /// The server that is meant: of the command line, of the variable, or the one that runs on the state directory.
    ///
    /// # Errors
    /// When its address is none, or the key that was named cannot be read.
    pub(crate) fn find(options: &ServerOptions, surroundings: &Surroundings<'_>) -> anyhow::Result<Self> {
        let text = |name: &str| {
            (surroundings.variable)(name).and_then(|value| value.into_string().ok()).filter(|t| !t.is_empty())
        };
        let dir = state_dir(options.state_dir.clone(), surroundings.variable, surroundings.is_root);
        let dir = dir.ok().map(StateDir::at);
        let given = options.url.clone().or_else(|| text(URL_VARIABLE));
        let running = || dir.as_ref().and_then(StateDir::server).map(|record| record.url);
        let url = given.or_else(running).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let mut key_problem = None;
        let (key, key_from) = if let Some(path) = &options.key_file {
            (Some(state::read_key(path)?), Some(path.display().to_string()))
        } else if let Some(key) = text(KEY_VARIABLE) {
            (Some(SecretString::from(key)), Some(format!("the variable {KEY_VARIABLE}")))
        } else {
            // The key of this machine is for the server of this machine and for no other.
            let file = dir.filter(|_| is_loopback(&url)).map(|dir| dir.key_file());
            found_key(file.as_deref(), &mut key_problem)
        };
        let client = Client::new(&url, key.as_ref())?;
        Ok(Self { client, url, key_from, key_problem })
    }

    /// The client for it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The error as a person needs it: with what to do.
    pub(crate) fn explain(&self, error: ClientError) -> anyhow::Error {
        let advice = match &error {
            ClientError::Unreachable { .. } => format!(
                "is `{} up` running? Another server is named with --url or {URL_VARIABLE}",
                machine::own_name()
            ),
            ClientError::Unauthorized => match (&self.key_from, &self.key_problem) {
                (Some(from), _) => format!(
                    "the key was taken from {from}; another is named with --key-file or {KEY_VARIABLE}"
                ),
                (None, Some(problem)) => {
                    format!("{problem}; name the key's file with --key-file, or set {KEY_VARIABLE}")
                }
                (None, None) => format!(
                    "no key was found for {}: name its file with --key-file, or set {KEY_VARIABLE}",
                    self.url
                ),
            },
            _ => return error.into(),
        };
        match error {
            // What the server would have to change is not what this caller can do.
            ClientError::Unauthorized => anyhow!("{} does not accept this call: {advice}", self.url),
            error => anyhow!("{:#}; {advice}", anyhow::Error::new(error)),
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

    /// That there is no such sandbox.
    pub(crate) fn no_such(&self, id: &str) -> String {
        format!(
            "there is no sandbox {id:?} at {}; `{} ls` lists those there are",
            self.url,
            machine::own_name()
        )
    }
}

fn found_key(file: Option<&Path>, problem: &mut Option<String>) -> (Option<SecretString>, Option<String>) {
    let Some(file) = file.filter(|file| file.try_exists().unwrap_or(true)) else { return (None, None) };
    match state::read_key(file) {
        Ok(key) => (Some(key), Some(file.display().to_string())),
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
            assert_eq!(said.key_from.as_deref(), Some("the variable PROVISIONER_API_KEY"), "{url}");
        }
    }

    #[test]
    fn a_key_file_that_was_named_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions { key_file: Some(dir.path().join("none")), ..ServerOptions::default() };
        assert!(find(&options, &[]).is_err());
    }
}
