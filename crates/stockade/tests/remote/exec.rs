//! `stockade exec` against a real agent: streams, exit status, input and interrupts.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::{Printed, World, breathe, mk_sandbox, wait};

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
fn not_a_byte_is_lost_however_fast_it_comes_and_however_slowly_it_is_read() {
    let world = World::start();
    world.create("a1");
    let script = "head -c 50000000 /dev/urandom | tee /dev/stderr >(sha256sum > \"$HOME/sum\")";
    let mut child = world
        .stockade(&["exec", "a1", "--", "bash", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let other = std::thread::spawn(move || checksum(&mut stderr, Duration::ZERO));
    let sum = checksum(&mut child.stdout.take().unwrap(), Duration::from_millis(5));
    assert_eq!((wait(&mut child).code(), &sum), (Some(0), &other.join().unwrap()));
    let truth = world.run(&[
        "exec",
        "a1",
        "--",
        "bash",
        "-c",
        "until [ -s \"$HOME/sum\" ]; do :; done; cat \"$HOME/sum\"",
    ]);
    assert_eq!(truth.stdout.split_whitespace().next(), Some(sum.as_str()));
}

/// The SHA-256 of what comes, with a rest after each MiB.
fn checksum(from: &mut impl std::io::Read, rest: Duration) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    while std::io::copy(&mut std::io::Read::take(&mut *from, 1 << 20), &mut stdin).unwrap() > 0 {
        breathe(rest);
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn what_is_left_in_the_pipe_when_the_command_ends_is_not_lost() {
    let world = World::start();
    world.create("a1");
    for bytes in [1_000_000, 1_048_576, 1_114_112, 3_000_001] {
        let said =
            world.run(&["exec", "a1", "--", "sh", "-c", &format!("head -c {bytes} /dev/zero; exit 3")]);
        assert_eq!((said.code, said.stdout.len()), (Some(3), bytes), "{}", said.stderr);
    }
}

#[test]
fn a_command_whose_caller_was_killed_ends() {
    let world = World::start();
    world.create("a1");
    let mut child =
        world.stockade(&["exec", "a1", "--", "yes", "lonely"]).stdout(Stdio::piped()).spawn().unwrap();
    Printed::by(child.stdout.take().unwrap()).until("lonely\n");
    child.kill().unwrap();
    wait(&mut child);
    let end = std::time::Instant::now() + crate::world::DEADLINE;
    while world.run(&["exec", "a1", "--", "pgrep", "-f", "[y]es lonely"]).code == Some(0) {
        assert!(std::time::Instant::now() < end, "it runs on");
        breathe(Duration::from_millis(200));
    }
}

#[test]
fn signals_end_it_while_the_sandbox_does_not_answer() {
    let world = World::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.lead("a1", &format!("http://{}", silent.local_addr().unwrap()));
    for (words, signal, code) in
        [(&["exec", "a1", "--", "true"][..], "-INT", 130), (&["shell", "a1"], "-TERM", 143)]
    {
        let mut child = world.stockade(words).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(wait(&mut child).code(), Some(code), "{words:?}");
    }
}

#[test]
fn a_sandbox_that_has_failed_says_why_at_once() {
    for (reason, next) in
        [("CrashLoopBackOff", "starts a fresh one"), ("Evicted", "its URL is http://192.0.2.1:1; ")]
    {
        is_refused(reason, next);
    }
}

fn is_refused(reason: &str, next: &str) {
    let world = World::start();
    world.show(stockade_core::Sandbox {
        status: stockade_core::Status::Failed,
        ready: false,
        reason: Some(reason.to_owned()),
        message: Some("its files are larger than 1Gi".to_owned()),
        // Nobody may listen there, and nobody is asked.
        ..mk_sandbox("a1".parse().unwrap(), "http://192.0.2.1:1".to_owned())
    });
    for words in [&["exec", "a1", "--", "true"][..], &["shell", "a1"]] {
        let said = world.run(words);
        assert_eq!(said.code, Some(1));
        let expect = format!("\"a1\" is Failed ({reason}): its files are larger than 1Gi; ");
        assert!(said.stderr.contains(&expect) && said.stderr.contains(next), "{}", said.stderr);
        assert_eq!(said.stderr.contains("fresh"), reason != "Evicted", "{}", said.stderr);
    }
}
