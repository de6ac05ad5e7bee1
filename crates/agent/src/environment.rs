//! The variables of commands: the agent's own, what programs expect to find, and what a request sets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::http::ApiError;

/// Found in the environment unless the sandbox sets them otherwise.
const DEFAULTS: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LANG", "C.UTF-8"),
    ("SHELL", "/bin/bash"),
    ("USER", "root"),
];

/// Have programs fail, or take the default, where they would ask somebody. Not ssh's batch mode: the variable for it
/// would replace what git is configured to call.
pub(crate) const NO_QUESTIONS: [(&str, &str); 4] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("PIP_NO_INPUT", "1"),
    ("npm_config_yes", "true"),
];

/// What bash keeps from a script that is not interactive, or runs as root, though it was in the environment.
const KEPT_FROM_SCRIPTS: [&str; 4] = ["PS1", "PS2", "PS4", "IFS"];
/// What bash sets itself, whatever is in the environment (tried with 5.2).
const BASH_S_OWN: [&str; 17] = [
    "BASH",
    "BASHPID",
    "BASH_COMMAND",
    "BASH_SUBSHELL",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "HISTCMD",
    "LINENO",
    "OPTERR",
    "OPTIND",
    "PPID",
    "PWD",
    "RANDOM",
    "SHLVL",
    "SRANDOM",
];
/// The kernel takes no longer variable: 32 pages with its name, the sign and the end.
const VARIABLE_BYTES: usize = 128 * 1024 - 2;
/// All variables of a request; the kernel takes 2 MiB of variables and arguments together, and there are others.
const ALL_BYTES: usize = 1024 * 1024;
/// Characters of a name that are repeated.
const SHOWN: usize = 100;

/// The agent's own environment, completed. Its home is that of its commands.
pub(crate) fn of_commands(home: &Path) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(key, _)| key != "HOME").collect();
    environment.push(("HOME".into(), home.into()));
    for (key, value) in DEFAULTS.into_iter().chain(NO_QUESTIONS) {
        if !environment.iter().any(|(known, _)| known == key) {
            environment.push((key.into(), value.into()));
        }
    }
    environment.extend(crate::git::configuration(&environment, Path::new(crate::git::SYSTEM)));
    environment
}

/// The variables that a request sets for a command of bash.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) variables: Vec<(String, String)>,
    /// Said to the caller: what does not reach the command.
    pub(crate) hint: Option<String>,
}

impl Requested {
    /// # Errors
    /// A name or value that no variable can have, and what is too large, by name.
    pub(crate) fn check(environment: BTreeMap<String, String>) -> Result<Self, ApiError> {
        let wrong = |name: &str, why: &str| {
            let shown: String = name.chars().take(SHOWN).collect();
            Err(ApiError::invalid("env", format!("{shown:?} {why}")))
        };
        let mut all = 0;
        for (name, value) in &environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return wrong(name, "is not a variable that can be set");
            }
            let length = name.len() + value.len();
            if length > VARIABLE_BYTES {
                let why = format!(
                    "has {length} bytes with its name, a variable at most {VARIABLE_BYTES}: use a file"
                );
                return wrong(name, &why);
            }
            all += length;
        }
        if all > ALL_BYTES {
            let why =
                format!("the variables have {all} bytes together, at most {ALL_BYTES} are taken: use a file");
            return Err(ApiError::invalid("env", why));
        }
        let lost: Vec<&str> =
            environment.keys().map(String::as_str).filter(|name| BASH_S_OWN.contains(name)).collect();
        let hint = (!lost.is_empty())
            .then(|| format!("bash sets {} itself: what env says of it has no effect", lost.join(", ")));
        Ok(Self { variables: environment.into_iter().collect(), hint })
    }
}

/// What sets those of `variables` that bash would keep from a script: the beginning of its first line, so that the
/// numbers of lines in messages stay.
pub(crate) fn prelude(variables: &[(String, String)]) -> String {
    let kept = variables.iter().filter(|(name, _)| KEPT_FROM_SCRIPTS.contains(&name.as_str()));
    kept.map(|(name, value)| format!("export {name}='{}'; ", value.replace('\'', r"'\''"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: String) -> Result<Requested, ApiError> {
        Requested::check(BTreeMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn names_and_sizes_that_cannot_be_are_refused_by_name() {
        for name in ["", "a=b", "a\0"] {
            assert!(check(name, String::new()).unwrap_err().message().contains("not a variable"), "{name:?}");
        }
        assert!(check("a", "\0".to_owned()).is_err());
        assert!(check("BIG", "x".repeat(VARIABLE_BYTES - 3)).is_ok());
        let error = check("BIG", "x".repeat(VARIABLE_BYTES - 2)).unwrap_err();
        assert!(error.message().starts_with("\"BIG\" has 131071 bytes"), "{}", error.message());
        let many = (0..12).map(|number| (format!("N{number}"), "x".repeat(100_000))).collect();
        assert!(Requested::check(many).unwrap_err().message().contains("1200026 bytes together"));
    }

    #[test]
    fn what_bash_keeps_is_set_and_what_it_sets_is_said() {
        let requested = check("PS1", "it's> ".to_owned()).unwrap();
        assert_eq!(requested.hint, None);
        assert_eq!(prelude(&requested.variables), r"export PS1='it'\''s> '; ");
        assert_eq!(prelude(&check("HOME", "/x".to_owned()).unwrap().variables), "");
        assert!(check("PPID", "7".to_owned()).unwrap().hint.unwrap().contains("bash sets PPID itself"));
    }
}
