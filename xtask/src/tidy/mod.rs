//! What no compiler looks at: the length of files, their documentation, what must not be in them, where links and
//! dependencies lead.
//!
//! `cargo xtask tidy`; `cargo test` runs it on the repository too.

mod dependencies;
mod documents;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::progress::answer;
use crate::{paths, run};

/// A file has one subject. Tests at its end do not count.
const MAX_LINES: usize = 500;

/// What must not be in any file, and why. In two parts, so that this file does not contain it.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("todo", "!(", "unfinished"),
    ("unimple", "mented!(", "unfinished"),
    ("dbg", "!(", "left from debugging"),
    ("/wor", "k/", "a path of one machine"),
    ("/root/.car", "go", "a path of one machine"),
    ("<<<<", "<<< ", "an unresolved merge"),
];

/// Files that are somebody else's words, or data.
const FOREIGN: [&str; 4] = ["LICENSE", "Cargo.lock", "go.sum", ".json"];

/// Prints what is untidy in the repository.
///
/// # Errors
/// When something is, or a file cannot be read.
pub fn run() -> Result<()> {
    let untidy = check(&paths::repository())?;
    for line in &untidy {
        answer(line);
    }
    ensure!(untidy.is_empty(), "{} to mend", untidy.len());
    Ok(())
}

/// Looks at every file that git knows or would know.
///
/// # Errors
/// When git or a file cannot be read. What is untidy is no error but the result, one line each.
pub fn check(repository: &Path) -> Result<Vec<String>> {
    let mut command = run::command(&["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let listed = run::output(command.current_dir(repository))?;
    let names: Vec<&str> =
        listed.split('\0').filter(|name| !name.is_empty() && repository.join(name).is_file()).collect();
    let mut untidy = documents::check(repository, &names)?;
    untidy.extend(dependencies::check(repository)?);
    for name in names {
        let path: PathBuf = repository.join(name);
        if FOREIGN.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Pictures and archives are not for reading.
        if let Ok(text) = String::from_utf8(bytes) {
            untidy.extend(look(name, &text).into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    Ok(untidy)
}

fn look(name: &str, text: &str) -> Vec<String> {
    let mut untidy = Vec::new();
    if text.contains('\r') {
        untidy.push("has carriage returns".to_owned());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        untidy.push("does not end with a newline".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            untidy.push(format!("line {} ends with white space", number + 1));
        }
        for (first, second, why) in FORBIDDEN {
            if line.contains(&format!("{first}{second}")) {
                untidy.push(format!("line {} has {first}{second}...: {why}", number + 1));
            }
        }
    }
    if name.ends_with(".rs") {
        // Tests beside a module are documented by it.
        let is_test = name.ends_with("tests.rs");
        untidy.extend(look_at_rust(text, is_test));
    }
    untidy
}

fn look_at_rust(text: &str, is_test: bool) -> Vec<String> {
    let mut untidy = Vec::new();
    let own = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = own.lines().count();
    if lines > MAX_LINES {
        untidy.push(format!("has {lines} lines, and {MAX_LINES} are enough for one subject"));
    }
    if !is_test && !text.starts_with("//!") {
        untidy.push("does not begin with //! and what it is about".to_owned());
    }
    untidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let untidy = check(&crate::paths::repository()).unwrap();
        assert!(untidy.is_empty(), "{}", untidy.join("\n"));
    }

    fn of(text: &str) -> Vec<String> {
        look("a.rs", text)
    }

    #[test]
    fn what_is_untidy_is_found() {
        assert_eq!(of("//! Good.\n"), [""; 0]);
        assert_eq!(of("fn f() {}\n").len(), 1, "no documentation");
        assert_eq!(of("//! x \n").len(), 1, "white space");
        assert_eq!(of("//! x").len(), 1, "no newline");
        assert_eq!(of(&format!("//! {}{}\n", "dbg", "!(1)")).len(), 1, "a forbidden word");
        assert_eq!(of(&format!("//!{}", "\n".repeat(501))).len(), 1, "too long");
        assert_eq!(of(&format!("//!\n#[cfg(test)]\nmod tests{}", "\n".repeat(501))), [""; 0]);
    }
}
