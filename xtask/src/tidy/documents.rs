//! Documents: their links lead somewhere, and the index of decisions names each.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Where decisions are, and the page that lists them.
const DECISIONS: &str = "docs/decisions/";
const INDEX: &str = "docs/decisions/README.md";

/// Looks at the Markdown files among `names`, which are relative to the repository.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn check(repository: &Path, names: &[&str]) -> Result<Vec<String>> {
    let read = |name: &str| {
        std::fs::read_to_string(repository.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let mut untidy = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".md")) {
        let directory = repository.join(name).parent().unwrap_or(repository).to_owned();
        let text = read(name)?;
        let broken = links(&text).filter(|link| !directory.join(link).exists());
        untidy.extend(broken.map(|link| format!("{name}: the link to {link} leads nowhere")));
    }
    if names.contains(&INDEX) {
        let index = read(INDEX)?;
        let listed: Vec<&str> = links(&index).collect();
        let pages = names.iter().filter_map(|name| name.strip_prefix(DECISIONS));
        let missing = pages.filter(|page| *page != "README.md" && !listed.contains(page));
        untidy.extend(missing.map(|page| format!("{INDEX}: does not list {page}")));
    }
    Ok(untidy)
}

/// The targets of a text's links that are files: no addresses, no places within the same page, nothing in code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    let lines = text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    // What stands between two backticks is code.
    let prose = lines.flat_map(|line| line.split('`').step_by(2));
    prose.flat_map(|prose| prose.split("](").skip(1)).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        let is_file = !target.is_empty() && !target.contains(':') && !target.starts_with('<');
        is_file.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_read_from_prose() {
        let text =
            "[a](b.md#c) `^[a-z]([a](x)` [d](https://e.example)\n```\n[f](g.md)\n```\n![h](i/j.svg) [k](#l)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "i/j.svg"]);
    }

    #[test]
    fn a_broken_link_and_a_page_that_is_not_listed_are_found() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join(DECISIONS)).unwrap();
        std::fs::write(directory.path().join(INDEX), "[1](there.md) [2](gone.md)").unwrap();
        std::fs::write(directory.path().join("docs/decisions/there.md"), "").unwrap();
        std::fs::write(directory.path().join("docs/decisions/new.md"), "").unwrap();
        let names = [INDEX, "docs/decisions/there.md", "docs/decisions/new.md"];
        let untidy = check(directory.path(), &names).unwrap();
        assert_eq!(untidy.len(), 2, "{untidy:?}");
        assert!(untidy[0].contains("gone.md") && untidy[1].contains("new.md"), "{untidy:?}");
    }
}
