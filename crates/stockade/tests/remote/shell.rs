//! `stockade shell` on a real terminal.

use std::io::Write;
use std::process::Stdio;

use crate::world::{Printed, World, wait};

#[test]
fn a_shell_does_what_is_typed_and_ends_with_it() {
    let world = World::start();
    world.create("a1");
    let output = world.run_with_input(&["shell", "a1"], b"echo $((40 + 2)); exit 7\n");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("\r42\r\n"), "{text:?}");
}

/// `script` runs the command on a terminal of its own.
#[test]
fn on_a_terminal_keys_pass_and_the_terminal_is_as_before() {
    let world = World::start();
    world.create("a1");
    let stockade = format!("{} shell a1", env!("CARGO_BIN_EXE_stockade"));
    let line = format!("stty rows 41 cols 137; stty -g; {stockade}; stty -g; echo over");
    let mut command = world.stockade(&[]);
    let mut command_line = std::process::Command::new("script");
    command_line.args(["-qfec", &line, "/dev/null"]).env_clear();
    command_line.envs(command.env_clear().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command_line.env("STOCKADE_URL", world.url()).env("PROVISIONER_API_KEY", crate::world::KEY);
    command_line.env("PATH", "/usr/bin:/bin").env("HOME", world.dir.path());
    let mut child = command_line.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    let before = stdout.until("\n");
    let settings = before.lines().next().unwrap().trim().to_owned();
    // What bash sends before it reads keys.
    stdout.until("\u{1b}[?2004h");
    stdin.write_all(b"stty size\r").unwrap();
    stdout.until("41 137");
    // Ctrl-C goes to what runs in the sandbox, and neither ends us nor the shell. What it is to end says itself that
    // it runs: until it has taken the terminal, bash may read a line there, and the key would be bash's. It is one
    // program: a shell between may lose the key while it starts another.
    stdin.write_all(b"echo run\"\"ning >said; tail -f said\r").unwrap();
    stdout.until("running");
    stdin.write_all(b"\x03").unwrap();
    stdout.until("^C");
    stdin.write_all(b"\recho still $((1 + 1))\r").unwrap();
    stdout.until("still 2");
    stdin.write_all(b"\r~.").unwrap();
    let after = stdout.until("over");
    assert!(after.contains(&settings), "{settings:?} in {after:?}");
    assert!(wait(&mut child).success());
}
