//! Paths on the host of a backend and inside a sandbox, compared lexically.
//!
//! Host paths are the node's, not this process's: they may be Windows paths (Docker Desktop), they
//! cannot be looked at from here, and so everything is decided on the text. What a text cannot decide
//! (symbolic links) is the mounting backend's task.

use std::fmt;

use thiserror::Error;

/// Why a text is not a usable path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// Not absolute in POSIX or Windows form.
    #[error("{path:?} is not an absolute path")]
    Relative {
        /// What was given.
        path: String,
    },
    /// A NUL byte or another control character.
    #[error("{path:?} has a control character")]
    Control {
        /// What was given, escaped by `Debug`.
        path: String,
    },
    /// Longer than a path may be (4096 bytes, Linux PATH_MAX).
    #[error("a path has at most {max} bytes, this one has {actual}")]
    TooLong {
        /// The limit.
        max: usize,
        /// What was given.
        actual: usize,
    },
}

const MAX_PATH: usize = 4096;

fn check_text(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong { max: MAX_PATH, actual: path.len() });
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control { path: path.to_owned() });
    }
    Ok(())
}

/// How the parts of a host path are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Style {
    Posix,
    Windows,
}

/// An absolute, normalised directory on the node: `/srv/x`, `C:\x`, `\\server\share\x`.
///
/// Normalised means: no `.`, no `..`, no doubled or trailing separator.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPath {
    text: String,
    style: Style,
}

impl HostPath {
    /// Checks and normalises.
    ///
    /// # Errors
    /// When the text is relative, too long, or has a control character.
    pub fn new(path: &str) -> Result<Self, PathError> {
        check_text(path)?;
        let bytes = path.as_bytes();
        let has_drive = bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
        if has_drive {
            if !matches!(bytes.get(2), Some(b'\\' | b'/')) {
                return Err(PathError::Relative { path: path.to_owned() });
            }
            let text = format!("{}\\{}", &path[..2], normal_parts(&path[3..], &['\\', '/']).join("\\"));
            return Ok(Self { text: trim_end(text, '\\', 3), style: Style::Windows });
        }
        if let Some(rest) = path.strip_prefix("\\\\") {
            let text = format!("\\\\{}", normal_parts(rest, &['\\', '/']).join("\\"));
            return Ok(Self { text, style: Style::Windows });
        }
        if !path.starts_with('/') {
            return Err(PathError::Relative { path: path.to_owned() });
        }
        if path.contains('\\') {
            // The reference joins with backslashes as soon as there is one, whatever comes first.
            let text = format!("/{}", normal_parts(path, &['\\', '/']).join("\\"));
            return Ok(Self { text, style: Style::Windows });
        }
        Ok(Self { text: format!("/{}", normal_parts(path, &['/']).join("/")), style: Style::Posix })
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// This directory with more parts below it. The parts are names checked elsewhere (ids, constants).
    #[must_use]
    pub fn join(&self, parts: &[&str]) -> Self {
        let separator = self.separator();
        let mut text = self.text.clone();
        for part in parts {
            if !text.ends_with(separator) {
                text.push(separator);
            }
            text.push_str(part);
        }
        Self { text, style: self.style }
    }

    /// The directory above, and the name of this one in it; `None` at a root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &str)> {
        let at = self.text.rfind(self.separator())?;
        let (parent, name) = (&self.text[..at], &self.text[at + 1..]);
        if name.is_empty() {
            return None;
        }
        let parent = match parent {
            "" => "/".to_owned(),
            drive if drive.ends_with(':') => format!("{drive}\\"),
            directory => directory.to_owned(),
        };
        Some((Self::new(&parent).ok()?, name))
    }

    /// Whether nothing is above it: `/`, `C:\\`, or a share of a server.
    #[must_use]
    pub fn is_root(&self) -> bool {
        let least = if self.text.starts_with("\\\\") { 2 } else { usize::from(self.style == Style::Windows) };
        self.parts().len() <= least
    }

    /// The parts of this path below `base`, joined with `/`; `None` when it is not strictly below.
    #[must_use]
    pub fn relative_to(&self, base: &Self) -> Option<String> {
        if self.style != base.style {
            return None;
        }
        let (own, above) = (self.parts(), base.parts());
        if own.len() <= above.len() || !own.iter().zip(&above).all(|(a, b)| self.same_part(a, b)) {
            return None;
        }
        Some(own[above.len()..].join("/"))
    }

    /// Whether both name one place: Windows compares names without case.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (own, theirs) = (self.parts(), other.parts());
        self.style == other.style
            && own.len() == theirs.len()
            && own.iter().zip(&theirs).all(|(a, b)| self.same_part(a, b))
    }

    fn same_part(&self, a: &str, b: &str) -> bool {
        match self.style {
            Style::Posix => a == b,
            Style::Windows => a.to_lowercase() == b.to_lowercase(),
        }
    }

    fn parts(&self) -> Vec<&str> {
        self.text.split(self.separator()).filter(|part| !part.is_empty()).collect()
    }

    fn separator(&self) -> char {
        match self.style {
            Style::Posix => '/',
            Style::Windows => '\\',
        }
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// An absolute, normalised POSIX path inside a sandbox.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPath(String);

impl ContainerPath {
    /// Checks and normalises.
    ///
    /// # Errors
    /// When the text is relative, too long, or has a control character.
    pub fn new(path: &str) -> Result<Self, PathError> {
        check_text(path)?;
        if !path.starts_with('/') {
            return Err(PathError::Relative { path: path.to_owned() });
        }
        Ok(Self(format!("/{}", normal_parts(path, &['/']).join("/"))))
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The parts of a path with `.` and `..` taken out; `..` above the root stays at the root.
fn normal_parts<'a>(path: &'a str, separators: &[char]) -> Vec<&'a str> {
    let mut parts = Vec::new();
    for part in path.split(|c| separators.contains(&c)) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts
}

fn trim_end(mut text: String, separator: char, keep: usize) -> String {
    while text.len() > keep && text.ends_with(separator) {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Option<&str>) {
        assert_eq!(HostPath::new(path).ok().as_ref().map(HostPath::as_str), expect, "{path:?}");
    }

    #[test]
    fn host_paths_are_absolute_and_normalised() {
        check("/srv//deer-flow/./x/../y/", Some("/srv/deer-flow/y"));
        check("/../..", Some("/"));
        check("C:\\deer\\..\\flow\\", Some("C:\\flow"));
        check("c:/deer/flow", Some("c:\\deer\\flow"));
        check("C:\\", Some("C:\\"));
        check("\\\\server\\share\\x", Some("\\\\server\\share\\x"));
        check("relative/x", None);
        check("C:relative", None);
        check("", None);
        check("/a\0b", None);
        check("/a\nb", None);
    }

    #[test]
    fn parts_are_joined_in_the_style_of_the_base() {
        let join = |base: &str| HostPath::new(base).unwrap().join(&["users", "u"]).to_string();
        assert_eq!(join("/srv"), "/srv/users/u");
        assert_eq!(join("/"), "/users/u");
        assert_eq!(join("C:\\srv"), "C:\\srv\\users\\u");
        assert_eq!(join("C:\\"), "C:\\users\\u");
        assert_eq!(join("\\\\server\\share"), "\\\\server\\share\\users\\u");
    }

    #[test]
    fn below_means_strictly_below_and_by_whole_parts() {
        let base = HostPath::new("/srv/deer-flow").unwrap();
        let relative = |path: &str| HostPath::new(path).unwrap().relative_to(&base);
        assert_eq!(relative("/srv/deer-flow/a/b").as_deref(), Some("a/b"));
        assert_eq!(relative("/srv/deer-flow"), None);
        assert_eq!(relative("/srv/deer-flow-other/a"), None);
        assert_eq!(relative("/srv/deer-flow/../x"), None);
        let windows = HostPath::new("C:\\Deer").unwrap();
        let below = HostPath::new("c:/deer/Users/a").unwrap();
        assert_eq!(below.relative_to(&windows).as_deref(), Some("Users/a"));
    }

    #[test]
    fn a_root_has_nothing_above_it() {
        let is_root = |path: &str| HostPath::new(path).unwrap().is_root();
        for root in ["/", "C:\\", "c:/", "\\\\server\\share"] {
            assert!(is_root(root), "{root}");
        }
        for other in ["/a", "C:\\a", "\\\\server\\share\\a"] {
            assert!(!is_root(other), "{other}");
        }
    }

    #[test]
    fn the_last_part_can_be_taken_off() {
        let split = |path: &str| {
            HostPath::new(path).unwrap().split_last().map(|(p, n)| (p.to_string(), n.to_owned()))
        };
        assert_eq!(split("/srv/threads"), Some(("/srv".into(), "threads".into())));
        assert_eq!(split("/threads"), Some(("/".into(), "threads".into())));
        assert_eq!(split("/"), None);
        assert_eq!(split("C:\\threads"), Some(("C:\\".into(), "threads".into())));
        assert_eq!(split("C:\\x\\threads"), Some(("C:\\x".into(), "threads".into())));
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "[/\\\\C:.a]{0,24}") {
            if let Ok(once) = HostPath::new(&path) {
                let twice = HostPath::new(once.as_str()).unwrap();
                assert_eq!(once.as_str(), twice.as_str());
            }
        }

        #[test]
        fn nothing_below_a_base_leaves_it(path in "/[a./]{0,24}") {
            let base = HostPath::new("/a").unwrap();
            if let Some(below) = HostPath::new(&path).unwrap().relative_to(&base) {
                assert!(!below.split('/').any(|part| part == ".." || part.is_empty()));
            }
        }
    }
}
