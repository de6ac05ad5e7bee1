//! Globs: relative to a root, against whole paths, and as ripgrep's `-g` takes them.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use super::failure::{Failure, Kind};
use super::paths::Target;

/// A glob relative to the root: `*` stays within one name, `**` is any number of directories.
pub(crate) fn relative_glob(target: &Target, pattern: &str) -> Result<Glob, Failure> {
    let root = target.path.to_string_lossy();
    let relative = match pattern.strip_prefix(root.trim_end_matches('/')) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => pattern,
    };
    let relative = relative.trim_start_matches("./").trim_start_matches('/');
    GlobBuilder::new(relative)
        .literal_separator(true)
        .backslash_escape(true)
        .empty_alternates(true)
        .build()
        .map_err(|error| {
            target.refused(Kind::BadPattern, format!("glob {pattern:?} is not understood: {error}"))
        })
}

/// How deep a pattern can match. `None`: any depth.
pub(crate) fn depth_of(pattern: &str) -> Option<usize> {
    let open_ended = pattern.contains("**") || pattern.contains(['{', '[', '\\']);
    (!open_ended).then(|| pattern.split('/').filter(|part| !part.is_empty()).count().max(1))
}

/// Globs that are matched against whole paths, in which `*` crosses directories.
pub(crate) fn path_globs(target: &Target, patterns: &[String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let build = |text: &str| GlobBuilder::new(text).literal_separator(false).build();
        let failed = |error: globset::Error| {
            target.refused(Kind::BadPattern, format!("glob {pattern:?} is not understood: {error}"))
        };
        set.add(build(pattern).map_err(failed)?);
        // `src/*.py` names a file below the root as well as it stands.
        if !pattern.starts_with('/') && !pattern.starts_with('*') {
            set.add(build(&format!("**/{pattern}")).map_err(failed)?);
        }
    }
    set.build().map_err(|error| target.refused(Kind::BadPattern, error.to_string()))
}

/// What `include` and `exclude` choose below the root, as `-g GLOB` and `-g !GLOB` do in ripgrep that was started there:
/// a glob without a slash is for names at any depth, one with a slash is for paths below the root, a directory that is
/// left out is not entered, and what is named by `include` is wanted whatever ignore files say. Beyond that a glob may
/// begin with the root's own path, and an `include` that begins with `**/` may name directories above the root.
pub(crate) fn choice(target: &Target, include: &[String], exclude: &[String]) -> Result<Override, Failure> {
    // Matched against whole paths, unless the root cannot be written as a glob.
    let root = target.path.to_str().map(|root| root.trim_end_matches('/'));
    let mut builder = OverrideBuilder::new(root.map_or(target.path.as_path(), |_| Path::new("/")));
    let below_root = |pattern: &str| {
        let escaped = root.map(globset::escape).unwrap_or_default();
        match root.and_then(|root| pattern.strip_prefix(root)) {
            Some(rest) if rest.starts_with('/') => format!("{escaped}{rest}"),
            _ => format!("{escaped}/{}", pattern.trim_start_matches('/')),
        }
    };
    let has_slash = |pattern: &str| pattern.trim_end_matches('/').contains('/');
    let mut add = |pattern: &str, wanted: bool| {
        let text = pattern.strip_prefix("./").unwrap_or(pattern);
        let text = match text {
            _ if wanted && text.starts_with("**/") => text.to_owned(),
            _ if has_slash(text) => below_root(text),
            // It would be a comment, as in an ignore file.
            _ if text.starts_with('#') => format!("\\{text}"),
            _ => text.to_owned(),
        };
        let line = if wanted { text } else { format!("!{text}") };
        builder.add(&line).map(drop).map_err(|error| {
            target.refused(Kind::BadPattern, format!("glob {pattern:?} is not understood: {error}"))
        })
    };
    for pattern in include {
        match pattern.strip_prefix('!') {
            Some(unwanted) => add(unwanted, false)?,
            None => add(pattern, true)?,
        }
    }
    for pattern in exclude {
        add(pattern.strip_prefix('!').unwrap_or(pattern), false)?;
    }
    builder.build().map_err(|error| target.refused(Kind::BadPattern, error.to_string()))
}

/// Whether `path`, or a directory between it and `root`, is left out.
pub(crate) fn leaves_out(choice: &Override, root: &Path, path: &Path, is_directory: bool) -> bool {
    let below = |above: &&Path| *above != root && above.starts_with(root);
    path.ancestors()
        .take_while(below)
        .any(|above| choice.matched(above, is_directory || above != path).is_ignore())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(path: &str) -> Target {
        Target::parse("glob", path, Path::new("/")).unwrap()
    }

    #[test]
    fn globs_match_as_the_callers_expect() {
        for (pattern, path, expect) in [
            ("*.md", "a.md", true),
            ("*.md", "sub/a.md", false),
            ("**/*.py", "a.py", true),
            ("**/*.py", "x/y/a.py", true),
            ("src/**/test_*.py", "src/test_a.py", true),
            ("src/**/test_*.py", "src/x/y/test_a.py", true),
            ("/root/*.md", "a.md", true),
            ("./*.md", "a.md", true),
            ("*.{md,txt}", "a.txt", true),
            ("**", "x/y", true),
        ] {
            let glob = relative_glob(&target("/root"), pattern).unwrap().compile_matcher();
            assert_eq!(glob.is_match(path), expect, "{pattern} {path}");
        }
        assert!(relative_glob(&target("/root"), "a[").is_err());
    }

    #[test]
    fn depth_is_known_for_plain_patterns() {
        assert_eq!(depth_of("*.md"), Some(1));
        assert_eq!(depth_of("a/*/c"), Some(3));
        assert_eq!(depth_of("a/**"), None);
        assert_eq!(depth_of("{a,b/c}"), None);
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "\\PC{0,40}", path in "[a-z/.]{0,20}") {
            if let Ok(glob) = relative_glob(&target("/root"), &pattern) {
                let _ = glob.compile_matcher().is_match(path);
            }
        }

        #[test]
        fn the_depth_bound_never_hides_a_match(pattern in "[a-c*?/]{1,8}", path in "[a-c]{1,2}(/[a-c]{1,2}){0,4}") {
            if let Ok(glob) = relative_glob(&target("/root"), &pattern)
                && glob.compile_matcher().is_match(&path)
                && let Some(depth) = depth_of(&pattern)
            {
                prop_assert!(path.split('/').count() <= depth, "{} {}", pattern, path);
            }
        }
    }
}
