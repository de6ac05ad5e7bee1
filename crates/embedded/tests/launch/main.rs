//! Real launches: as root, once more as root of an older kernel, and once more as an ordinary user.
//!
//! The program is run again by itself in other roles (the launcher, the agent) and as another user, so that it has
//! no harness of the usual kind. `launch NAME...` runs the tests whose names contain one of these.

// All of it is tests, though none has the attribute that would say so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contents;
mod faults;
mod measure;
mod mounts;
mod sandbox;
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use stockade_embedded::facts::MachineFacts;
use world::{Kind, World};

/// A test, by its name.
type Test = (&'static str, fn(&World));

/// Any user that is nobody else; it has no entry anywhere.
const ORDINARY: u32 = 12_345;

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    if let Some(code) = stockade_embedded::role::run() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let root = rustix::process::geteuid().is_root();
    if !root && let Err(error) = stockade_embedded::launch::enter_outer_namespaces(None) {
        eprintln!("not run: {error}");
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let kind = if root { Kind::Root } else { Kind::Ordinary };
    if arguments.iter().any(|argument| argument == "--measure") {
        measure::run(&World::new(kind, MachineFacts::probe()), &names);
        return ExitCode::SUCCESS;
    }
    let facts = MachineFacts::probe();
    let mut failed = run(kind, "", facts.clone(), &names);
    if root {
        if facts.idmapped_memory {
            // As before Linux 6.3.
            let facts = MachineFacts { idmapped_memory: false, ..facts };
            failed |= run(kind, ", layers on disk", facts.clone(), &names);
            let facts = MachineFacts { idmapped_layers: false, ..facts };
            failed |= run(kind, ", layers with their files' owners", facts, &names);
        }
        failed |= !run_as_ordinary_user(&arguments);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[allow(clippy::print_stderr)]
fn run(kind: Kind, how: &str, facts: MachineFacts, names: &[&String]) -> bool {
    let tests: Vec<Test> =
        contents::TESTS.iter().chain(mounts::TESTS).chain(faults::TESTS).copied().collect();
    let world = World::new(kind, facts);
    let mut failed = false;
    for (name, test) in tests {
        if !names.is_empty() && !names.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        // Tests end what they start, whether they fail or not.
        let passed = std::panic::catch_unwind(AssertUnwindSafe(|| test(&world))).is_ok();
        eprintln!("{kind:?}{how} {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed |= !passed;
    }
    failed
}

fn run_as_ordinary_user(arguments: &[String]) -> bool {
    use std::os::unix::process::CommandExt;
    // The standard library leaves all other groups when root names another user.
    let mut again = std::process::Command::new("/proc/self/exe");
    again.args(arguments).uid(ORDINARY).gid(ORDINARY);
    again.status().is_ok_and(|status| status.success())
}
