//! Searches over many files, beside ripgrep itself: its whole process, as the answer is a whole answer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{Agent, Client};
use crate::rows::{Row, Rows, Times};

const FILES: usize = 100_000;
const TURNS: usize = 9;
/// The design's bound: so many times as long as ripgrep.
const SLOWER: f64 = 1.5;

pub(crate) fn measure(agent: &Agent, rows: &mut Rows) {
    let root = agent.home.path().join("tree");
    plant(&root);
    let mut client = agent.client();
    let root = root.to_string_lossy().into_owned();
    let grep = json!({ "path": root, "pattern": "needle_7[0-4]$", "max_results": FILES });
    let glob = json!({ "path": root, "pattern": "**/*.py", "max_results": FILES, "include_metadata": false });
    let facts = json!({ "path": root, "pattern": "**/*.py", "max_results": FILES });
    let find = json!({ "path": root, "glob": "**/*.py" });
    let matches: &[&str] = &["-n", "--no-heading", "needle_7[0-4]$", &root];
    let files: &[&str] = &["--files", "-g", "*.py", &root];
    for (what, route, body, ripgrep) in [
        ("grep, 100,000 files", "/v1/file/grep", &grep, matches),
        ("glob, 100,000 files", "/v1/file/glob", &glob, files),
        ("find, 100,000 files", "/v1/file/find", &find, files),
    ] {
        let (ours, floor) = compare(&mut client, route, body, ripgrep);
        rows.add(&Row::times(what, &ours).floor(floor).budget(floor * SLOWER));
    }
    // ripgrep does not look at sizes and times.
    let (ours, floor) = compare(&mut client, "/v1/file/glob", &facts, files);
    rows.add(&Row::times("glob with sizes and times", &ours).floor(floor));
}

fn plant(root: &Path) {
    for directory in 0..FILES / 100 {
        let directory = root.join(format!("d{}", directory / 32)).join(format!("e{directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            let name = format!("f{file}.{}", if file % 2 == 0 { "py" } else { "rs" });
            let text = format!("fn function_{file}() {{}}\nplain text line\nneedle_{file}\n");
            std::fs::write(directory.join(name), text).unwrap();
        }
    }
}

/// Times of ours, and the median of ripgrep's in milliseconds, by turns.
fn compare(
    client: &mut Client,
    route: &str,
    body: &Value,
    ripgrep: &[&str],
) -> (Vec<std::time::Duration>, f64) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let began = Instant::now();
        assert_eq!(client.post(route, body).status, 200);
        ours.push(began.elapsed());
        let began = Instant::now();
        let output = Command::new("rg").args(ripgrep).stdin(Stdio::null()).output();
        assert!(output.expect("ripgrep (rg) is installed").status.success());
        theirs.push(began.elapsed());
    }
    (ours, Times::of(&theirs).quantile(0.5))
}
