//! `stockade logs` of a sandbox that means no good.

use std::process::{Command, Stdio};

use crate::world::{HOSTILE, Printed, World, wait};

#[test]
fn a_terminal_sees_nothing_of_a_log_but_its_text() {
    let world = World::start();
    world.create("a1");
    let line = format!("{} logs a1; echo over", env!("CARGO_BIN_EXE_stockade"));
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("STOCKADE_URL", world.url()).env("PROVISIONER_API_KEY", crate::world::KEY);
    command.env("HOME", world.dir.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    let said = stdout.until("over\r\n");
    assert!(said.contains("first\r\n"), "{said:?}");
    assert!(said.contains(" ]0;owned  txt over 2J"), "{said:?}");
    for c in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(!said.contains(c), "{c:?} in {said:?}");
    }
    wait(&mut child);
}

#[test]
fn a_pipe_gets_a_log_byte_by_byte() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["logs", "a1"]);
    assert!(said.stdout.starts_with("first\n") && said.stdout.ends_with(HOSTILE), "{said:?}");
}

#[test]
fn one_that_is_followed_says_why_it_ended() {
    let world = World::start();
    world.create("a1");
    let mut command = world.stockade(&["logs", "--follow", "a1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    let mut stderr = Printed::by(child.stderr.take().unwrap());
    stdout.until("end\n");
    assert_eq!(world.run(&["rm", "a1"]).code, Some(0));
    stderr.until("sandbox \"a1\" was deleted meanwhile\n");
    assert!(wait(&mut child).success(), "all of the log was printed");
}
