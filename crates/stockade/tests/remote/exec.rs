//! `stockade exec` against a real agent: streams, exit status, input and interrupts.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::{Printed, World, breathe, wait};

#[test]
fn streams_come_apart_and_the_exit_status_is_the_command_s() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["exec", "a1", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(7), "out\n", "err\n"));
    let said = world.run(&["exec", "a1", "--", "true"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""));
    let said = world.run(&["exec", "a1", "--", "no-such-program"]);
    assert_eq!(said.code, Some(127));
    assert!(said.stderr.contains("no-such-program"), "{}", said.stderr);
    let said = world.run(&["exec", "a1", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(said.code, Some(137));
}

#[test]
fn words_arrive_as_they_are() {
    let world = World::start();
    world.create("a1");
    let words = ["it's", "a b", "", "$HOME", "`id`", "a\nb", "-x", "--", "*"];
    let said = world.run(&[&["exec", "a1", "--", "printf", "[%s]"][..], &words].concat());
    let expect: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!((said.code, said.stdout), (Some(0), expect));
    assert_eq!(world.run(&["exec", "a1", "--", "A=1"]).code, Some(127), "no assignment");
}

#[test]
fn directory_and_variables_are_the_command_s_alone() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["exec", "a1", "-w", "/usr", "-e", "A=x y", "--", "sh", "-c", "pwd; echo \"$A\""]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "/usr\nx y\n"), "{}", said.stderr);
    let said = world.run(&["exec", "a1", "-w", "/nowhere", "--", "pwd"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("/nowhere"), "{}", said.stderr);
}

#[test]
fn without_input_a_command_reads_its_end() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["exec", "a1", "--", "cat"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""));
}

#[test]
fn bytes_pass_through_as_they_are() {
    let world = World::start();
    world.create("a1");
    let bytes: Vec<u8> =
        (0..1_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = world.run_with_input(&["exec", "-i", "a1", "--", "cat"], &bytes);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    // It ends before it has read all, and that is its own affair.
    let output = world.run_with_input(&["exec", "-i", "a1", "--", "head", "-c", "3"], &bytes);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &bytes[..3]));
}

#[test]
fn output_comes_while_the_command_runs() {
    let world = World::start();
    world.create("a1");
    let mut child = world
        .stockade(&["exec", "-i", "a1", "--", "sh", "-c", "echo ready; read line; echo \"got $line\""])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    stdout.until("ready\n");
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"it\n").unwrap();
    stdout.until("got it\n");
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn an_interrupt_is_the_command_s() {
    let world = World::start();
    world.create("a1");
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut child =
        world.stockade(&["exec", "a1", "--", "bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = Printed::by(child.stdout.take().unwrap());
    stdout.until("ready\n");
    interrupt(child.id());
    stdout.until("caught\n");
    assert_eq!(wait(&mut child).code(), Some(3));
}

#[test]
fn a_command_that_hears_nothing_is_killed_at_the_third_interrupt() {
    let world = World::start();
    world.create("a1");
    let script = "trap '' INT TERM; echo ready; while :; do sleep 0.05; done";
    let mut child =
        world.stockade(&["exec", "a1", "--", "bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    Printed::by(child.stdout.take().unwrap()).until("ready\n");
    let pid = child.id();
    while child.try_wait().unwrap().is_none() {
        interrupt(pid);
        breathe(Duration::from_millis(50));
    }
    let code = wait(&mut child).code();
    assert!(matches!(code, Some(130 | 137)), "{code:?}");
    let left = world.run(&["exec", "a1", "--", "pgrep", "-f", "[t]rap .. INT TERM; echo ready"]);
    assert_eq!(left.stdout.lines().count(), 0, "{}", left.stdout);
}

fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn what_was_dropped_is_said() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["exec", "a1", "--", "sh", "-c", "head -c 200000000 /dev/zero"]);
    assert_eq!(said.code, Some(0));
    let lost = 200_000_000 - said.stdout.len();
    if lost > 0 {
        assert!(said.stderr.contains(&format!("{lost} bytes of output came faster")), "{}", said.stderr);
    }
}
