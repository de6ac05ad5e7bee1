//! Dependencies: between our crates they point downward, and each of others' has its reason in ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cargo::Cargo;
use crate::run;

/// Our crates, lowest first: each depends on what lies below it, never on its own floor.
const FLOORS: [&[&str]; 5] = [
    &["stockade-core", "stockade-agent"],
    &["stockade-api", "stockade-kubernetes", "stockade-embedded"],
    &["stockade-server"],
    &["stockade"],
    &["stockade-e2e", "stockade-testbox", "xtask"],
];
/// The heading above the table of reasons.
const HEADING: &str = "\n## Dependencies\n";

/// Looks at what cargo says of all crates, and at the table in ARCHITECTURE.md.
///
/// # Errors
/// When cargo fails, or there is no such table.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let mut command = Cargo::new("metadata").args(["--format-version", "1", "--no-deps", "--locked"]);
    let metadata = run::output(command.command().current_dir(repository))?;
    let metadata: Value = serde_json::from_str(&metadata).context("what cargo says is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let architecture =
        std::fs::read_to_string(repository.join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    let (_, table) =
        architecture.split_once(HEADING).context("ARCHITECTURE.md has no table of dependencies")?;
    let mut untidy = upward(packages);
    untidy.extend(unexplained(packages, &explained(table)));
    Ok(untidy)
}

fn floor(package: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&package))
}

/// The name of a package, and of what it depends on: those that tests alone need are told by `of_tests`.
fn dependencies(package: &Value, of_tests: bool) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().into_iter().flatten();
    all.filter(move |dependency| (dependency["kind"] == "dev") == of_tests)
        .filter_map(|dependency| dependency["name"].as_str())
}

/// Dependencies on the same floor or a higher one. Tests may reach anywhere.
fn upward(packages: &[Value]) -> Vec<String> {
    let mut untidy = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = floor(name) else {
            untidy.push(format!("{name}: is on no floor; add it to xtask/src/tidy/dependencies.rs"));
            continue;
        };
        let above =
            dependencies(package, false).filter(|other| floor(other).is_some_and(|other| other >= own));
        untidy.extend(above.map(|other| format!("{name}: depends on {other}, which is not below it")));
    }
    untidy
}

/// The crates in the first column of the table.
fn explained(table: &str) -> BTreeSet<&str> {
    let section = table.split("\n## ").next().unwrap_or(table);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    rows.flat_map(|cell| cell.split('`').step_by(2)).filter(|name| !name.trim().is_empty()).collect()
}

fn unexplained(packages: &[Value], explained: &BTreeSet<&str>) -> Vec<String> {
    let of_others = |of_tests: bool| -> BTreeSet<&str> {
        let all = packages.iter().flat_map(|package| dependencies(package, of_tests));
        all.filter(|name| floor(name).is_none()).collect()
    };
    let (used, tests) = (of_others(false), of_others(true));
    let missing = used.difference(explained);
    let missing =
        missing.map(|name| format!("ARCHITECTURE.md: no reason is given for the dependency {name}"));
    let gone = explained.iter().filter(|name| !used.contains(*name) && !tests.contains(*name));
    missing.chain(gone.map(|name| format!("ARCHITECTURE.md: {name} is no dependency any more"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dependency_that_points_upward_is_found() {
        let package = |name: &str, other: &str, kind: Value| json!({"name": name, "dependencies": [{"name": other, "kind": kind}]});
        assert_eq!(upward(&[package("stockade-server", "stockade-core", Value::Null)]), [""; 0]);
        assert_eq!(upward(&[package("stockade-core", "stockade", json!("dev"))]), [""; 0]);
        assert_eq!(upward(&[package("stockade-core", "stockade-agent", Value::Null)]).len(), 1);
        assert_eq!(upward(&[package("stockade-new", "serde", Value::Null)]).len(), 1);
    }

    #[test]
    fn reasons_are_held_against_what_is_used() {
        let packages = [json!({"name": "stockade", "dependencies": [
            {"name": "a", "kind": null}, {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]})];
        let table = "\n| crate | where | for |\n| --- | --- | --- |\n| `a`, `c` | x | y `z` |\n| `d` | x | y |\n\n## Next\n| `b` | | |\n";
        let untidy = unexplained(&packages, &explained(table));
        assert_eq!(untidy.len(), 2, "{untidy:?}");
        assert!(untidy[0].contains(" b") && untidy[1].contains(" d "), "{untidy:?}");
    }
}
