//! What is said when a sandbox ends while something runs in it.

use std::process::{Child, Stdio};

use stockade_core::{Sandbox, Status};

use crate::world::{Printed, World, mk_sandbox, wait};

/// A command that runs in the sandbox until that ends.
fn begin(world: &World, id: &str) -> Child {
    let mut command = world.stockade(&["exec", id, "--", "sh", "-c", "echo begun; exec sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Printed::by(child.stdout.take().unwrap()).until("begun\n");
    child
}

/// What it says when the agent has ended and the server shows this in its place.
fn said_when(world: &World, id: &str, then: Option<Sandbox>) -> String {
    let mut child = begin(world, id);
    if let Some(then) = then {
        world.show(then);
    }
    assert_eq!(world.run(&["rm", id]).code, Some(0));
    let said = Printed::by(child.stderr.take().unwrap()).until("\n");
    assert_eq!(wait(&mut child).code(), Some(1), "{said}");
    said
}

/// The sandbox as it is, in another state.
fn mk_state(world: &World, id: &str, reason: &str, change: impl FnOnce(&mut Sandbox)) -> Sandbox {
    let shown = world.run(&["get", "--json", id]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let mut sandbox = mk_sandbox(id.parse().unwrap(), shown["sandbox_url"].as_str().unwrap().to_owned());
    sandbox.created_at = Some(shown["created_at"].as_str().unwrap().parse().unwrap());
    sandbox.reason = Some(reason.to_owned());
    change(&mut sandbox);
    sandbox
}

#[test]
fn a_command_whose_sandbox_is_deleted_says_so() {
    let world = World::start();
    world.create("a1");
    let said = said_when(&world, "a1", None);
    assert!(said.starts_with("stockade: sandbox \"a1\" was deleted meanwhile: "), "{said}");
}

#[test]
fn a_command_whose_sandbox_was_stopped_says_why() {
    let world = World::start();
    let why = Some("its files take\u{202e} more than its limit of 32Mi".to_owned());
    for (id, reason, change, expect) in [
        ("a1", "Evicted", (Status::Failed, false), "is Failed (Evicted) now: its files take  more than"),
        ("a2", "OOMKilled", (Status::Pending, false), "is Pending (OOMKilled) now: its files"),
        ("a3", "Paused", (Status::Running, true), "was paused meanwhile: its files"),
    ] {
        world.create(id);
        let then = mk_state(&world, id, reason, |sandbox| {
            (sandbox.status, sandbox.ready) = change;
            sandbox.message.clone_from(&why);
        });
        let said = said_when(&world, id, Some(then));
        assert!(said.contains(&format!("sandbox \"{id}\" {expect}")), "{said}");
    }
}

#[test]
fn a_command_whose_sandbox_was_made_anew_says_so() {
    let world = World::start();
    world.create("a1");
    let then = mk_state(&world, "a1", "", |sandbox| {
        sandbox.reason = None;
        sandbox.created_at = Some(jiff::Timestamp::now());
    });
    let said = said_when(&world, "a1", Some(then));
    assert!(said.contains("was deleted meanwhile, and another made under its id"), "{said}");
}

#[test]
fn a_terminal_whose_sandbox_is_deleted_says_so() {
    let world = World::start();
    world.create("a1");
    let mut command = world.stockade(&["shell", "a1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _stdin = child.stdin.take();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    stdout.until("\u{1b}[?2004h");
    assert_eq!(world.run(&["rm", "a1"]).code, Some(0));
    let said = Printed::by(child.stderr.take().unwrap()).until("\n");
    assert!(said.contains("sandbox \"a1\" was deleted meanwhile"), "{said}");
    assert_eq!(wait(&mut child).code(), Some(1));
}
