//! What commands are told so that git works in directories that belong to somebody else.
//!
//! A directory that is mounted into a sandbox belongs to whoever it belongs to outside, and git calls a repository
//! there "dubious": another user of the machine may have planted it. In a sandbox there is one user, and what is
//! mounted is there for that one.

use std::ffi::OsString;
use std::path::Path;

/// Where an image says what holds for git. One that says so itself is not told again.
pub(crate) const SYSTEM: &str = "/etc/gitconfig";
/// Longer ones are not read.
const LONGEST: u64 = 64 * 1024;

/// The variables to add to `environment`. Settings that are passed in it already stay; those of a request replace
/// these, as they would without us. A user's `safe.directory` in `~/.gitconfig` adds to it.
pub(crate) fn configuration(
    environment: &[(OsString, OsString)],
    system: &Path,
) -> Vec<(OsString, OsString)> {
    if says_which_directories_are_safe(system) {
        return Vec::new();
    }
    let count = environment.iter().find(|(name, _)| name == "GIT_CONFIG_COUNT");
    let count = count.map(|(_, count)| count.to_str().and_then(|count| count.parse::<u32>().ok()));
    let number = match count {
        None => 0,
        Some(Some(count)) => count,
        // git refuses to work with it, which is for whoever set it to see.
        Some(None) => return Vec::new(),
    };
    vec![
        ("GIT_CONFIG_COUNT".into(), number.saturating_add(1).to_string().into()),
        (format!("GIT_CONFIG_KEY_{number}").into(), "safe.directory".into()),
        (format!("GIT_CONFIG_VALUE_{number}").into(), "*".into()),
    ]
}

fn says_which_directories_are_safe(system: &Path) -> bool {
    let length = std::fs::metadata(system).map_or(0, |found| found.len());
    if length == 0 || length > LONGEST {
        return false;
    }
    let text = std::fs::read_to_string(system).unwrap_or_default().to_ascii_lowercase();
    let mut section = false;
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line.starts_with("[safe]");
        }
        let setting = line.strip_prefix("[safe]").unwrap_or(line).trim_start();
        section && setting.strip_prefix("directory").is_some_and(|rest| rest.trim_start().starts_with('='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(environment: &[(&str, &str)], system: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), system).unwrap();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        let said = configuration(&environment, file.path());
        said.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    #[test]
    fn every_directory_is_safe() {
        let expect = ["GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"];
        assert_eq!(names(&[], ""), expect);
        assert_eq!(names(&[], "[user]\n\tname = directory = x\n[core]\ndirectory = 1\n"), expect);
    }

    #[test]
    fn settings_that_are_there_stay() {
        let there = [("GIT_CONFIG_COUNT", "2"), ("GIT_CONFIG_KEY_0", "a.b"), ("GIT_CONFIG_VALUE_0", "c")];
        let expect = ["GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_2=safe.directory", "GIT_CONFIG_VALUE_2=*"];
        assert_eq!(names(&there, ""), expect);
        assert!(names(&[("GIT_CONFIG_COUNT", "many")], "").is_empty());
    }

    #[test]
    fn what_the_image_says_holds() {
        for system in [
            "[safe]\n\tdirectory = /srv/a\n",
            "[user]\nname=x\n[SAFE]\ndirectory=*\n",
            "[safe] directory = *\n",
        ] {
            assert!(names(&[], system).is_empty(), "{system}");
        }
    }
}
