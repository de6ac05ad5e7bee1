//! How this program is called again: lines in advice and hints work as they stand.

use std::net::SocketAddr;
use std::path::Path;

use crate::machine;
use crate::remote::quote;
use crate::settings::{DEFAULT_LISTEN_UP, state_dir};

/// Our own command line, with the options that lead to the same server or state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnLine {
    name: String,
    options: Vec<String>,
}

impl OwnLine {
    /// As this program was called, without options.
    pub(crate) fn plain() -> Self {
        Self { name: machine::own_name(), options: Vec::new() }
    }

    /// For this state directory: named when another shell of this user would not find it by itself.
    pub(crate) fn of_state_dir(dir: &Path) -> Self {
        let is_root = machine::is_root();
        // A variable that is set here may not be set there.
        let lookup = |name: &str| if name == "STOCKADE_STATE_DIR" { None } else { machine::variable(name) };
        let is_usual = state_dir(None, &lookup, is_root).is_ok_and(|usual| usual == dir);
        let own = Self::plain();
        if is_usual { own } else { own.with("--state-dir", &dir.to_string_lossy()) }
    }

    /// With one option more.
    pub(crate) fn with(mut self, option: &str, value: &str) -> Self {
        self.options.extend([option.to_owned(), value.to_owned()]);
        self
    }

    /// The line that starts the same server again.
    pub(crate) fn up(&self, listen: SocketAddr) -> String {
        let usual = listen == DEFAULT_LISTEN_UP;
        let own = self.clone();
        let own = if usual { own } else { own.with("--listen", &listen.to_string()) };
        own.line("up", "")
    }

    /// A line: the command, our options, and `rest` as it is.
    pub(crate) fn line(&self, command: &str, rest: &str) -> String {
        let mut line = format!("{} {command}", quote::word(&self.name));
        for word in &self.options {
            line.push(' ');
            line.push_str(&quote::word(word));
        }
        if !rest.is_empty() {
            line.push(' ');
            line.push_str(rest);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_after_the_command_and_are_quoted() {
        let own = OwnLine { name: "/o p/stockade".into(), options: vec![] };
        assert_eq!(own.line("ls", ""), "'/o p/stockade' ls");
        let own = own.with("--state-dir", "/s p");
        assert_eq!(own.line("exec", "demo -- ls"), "'/o p/stockade' exec --state-dir '/s p' demo -- ls");
        let listen = "127.0.0.1:9000".parse().unwrap();
        assert_eq!(own.up(listen), "'/o p/stockade' up --state-dir '/s p' --listen 127.0.0.1:9000");
        assert_eq!(own.up(DEFAULT_LISTEN_UP), "'/o p/stockade' up --state-dir '/s p'");
    }
}
