//! Reading variables, and collecting what is wrong with them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use thiserror::Error;

/// Looks a variable up. The process's own environment is one; tests have others.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Everything settings are read from, so that tests have their own.
pub(crate) struct Surroundings<'a> {
    /// Looks a variable up.
    pub(crate) variable: Lookup<'a>,
    /// Reads a file that a variable names.
    pub(crate) read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether this process is root's.
    pub(crate) is_root: bool,
}

/// The longest value that a message repeats, in characters.
const MAX_SHOWN: usize = 120;

/// A value that stops the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    variable: &'static str,
    found: String,
    expected: String,
}

impl Problem {
    /// The variable.
    pub(crate) fn variable(&self) -> &'static str {
        self.variable
    }

    /// Its value, quoted; or what stands for it when it is secret.
    pub(crate) fn found(&self) -> &str {
        &self.found
    }

    /// What would be right.
    pub(crate) fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.variable, self.found, self.expected)
    }
}

/// All values that stop the start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(.0))]
pub(crate) struct SettingsError(Vec<Problem>);

impl SettingsError {
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.0
    }
}

fn lines(problems: &[Problem]) -> String {
    let mut text = String::from("the settings are wrong");
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}

/// Reads variables one by one; what is wrong is kept for the end, so that all of it is said at once.
pub(crate) struct Reader<'a> {
    surroundings: &'a Surroundings<'a>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(surroundings: &'a Surroundings<'a>) -> Self {
        Self { surroundings, problems: Vec::new() }
    }

    /// Looks a variable up, as it is.
    pub(crate) fn lookup(&self) -> Lookup<'a> {
        self.surroundings.variable
    }

    /// Whether this process is root's.
    pub(crate) fn is_root(&self) -> bool {
        self.surroundings.is_root
    }

    /// The content of a file that a variable names.
    pub(crate) fn file(&self, path: &Path) -> io::Result<String> {
        (self.surroundings.read_file)(path)
    }

    /// Whether the variable is set to anything.
    pub(crate) fn is_set(&self, variable: &str) -> bool {
        (self.surroundings.variable)(variable).is_some_and(|value| !value.is_empty())
    }

    /// The value as it is. Empty is unset: compose files pass variables on that nobody has set.
    pub(crate) fn text(&mut self, variable: &'static str) -> Option<String> {
        match (self.surroundings.variable)(variable)?.into_string() {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(text),
            Err(bytes) => {
                self.problem(variable, &bytes.to_string_lossy(), "must be text in UTF-8");
                None
            }
        }
    }

    /// The value, read by `parse`, which says what would be right when it cannot.
    pub(crate) fn parse<T, E: fmt::Display>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.problem(variable, &text, expected.to_string());
                None
            }
        }
    }

    /// As [`Self::parse`], for values that no message may show.
    pub(crate) fn parse_secret<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                let expected = expected.to_owned();
                self.problems.push(Problem { variable, found: "wrong (not shown)".to_owned(), expected });
                None
            }
        }
    }

    /// Keeps a problem.
    pub(crate) fn problem(&mut self, variable: &'static str, value: &str, expected: impl Into<String>) {
        let value = without_credentials(value);
        let mut shown: String = value.chars().take(MAX_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        // Debug form: a value may hold control characters, which are usually what is wrong with it.
        self.problems.push(Problem { variable, found: format!("{shown:?}"), expected: expected.into() });
    }

    /// Whether something is wrong with the variable.
    pub(crate) fn has_problem(&self, variable: &str) -> bool {
        self.problems.iter().any(|problem| problem.variable == variable)
    }

    /// The settings, unless something was wrong.
    pub(crate) fn finish<T>(self, settings: T) -> Result<T, SettingsError> {
        if self.problems.is_empty() { Ok(settings) } else { Err(SettingsError(self.problems)) }
    }
}

/// The value without what stands before an `@`: in a URL that is a user and a password.
fn without_credentials(value: &str) -> String {
    match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &value[..scheme + 3], &value[at..]),
        _ => value.to_owned(),
    }
}
