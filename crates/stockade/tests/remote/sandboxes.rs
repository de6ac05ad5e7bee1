//! `stockade create`, `ls`, `get`, `rm` and the like against a real server.

use serde_json::Value;

use crate::world::{HOSTILE, KEY, World};

#[test]
fn a_sandbox_lives_through_the_commands() {
    let world = World::start();
    let made = world.run(&["create", "a1", "--wait", "--user", "alice", "--thread", "t1"]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:?}");
    assert!(
        made.stdout.contains("id       a1\n") && made.stdout.contains("user     alice\n"),
        "{}",
        made.stdout
    );
    let list = world.run(&["ls"]).stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("ID  STATUS   AGE  URL"), "{list}");
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert!(
        matches!(row[..], ["a1", "Running", _, url, "alice", "t1"] if url.starts_with("http://127.")),
        "{list}"
    );
    assert!(row[2].ends_with('s'), "{list}");
    let shown = world.run(&["get", "a1"]).stdout;
    assert!(shown.contains("status   Running\n"), "{shown}");
    assert!(shown.contains("Started: the agent listens (2 times)"), "{shown}");
    let ended = world.run(&["rm", "a1"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "a1 has ended\n"));
    assert_eq!(world.run(&["ls"]).stdout.lines().count(), 1);
}

#[test]
fn everything_is_there_as_json_too() {
    let world = World::start();
    let parse = |arguments: &[&str]| -> Value {
        let said = world.run(arguments);
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    };
    let made = parse(&["create", "--json", "--wait"]);
    let id = made["sandbox_id"].as_str().unwrap();
    assert_eq!(id.len(), 8, "an id like DeerFlow's: {made}");
    assert_eq!(parse(&["ls", "--json"])["count"], 1);
    assert_eq!(parse(&["get", id, "--json"]), made);
    assert_eq!(parse(&["rm", id, "--json"])["ok"], true);
}

#[test]
fn what_is_asked_for_reaches_the_server() {
    let world = World::start();
    let file = world.dir.path().join("variables");
    std::fs::write(&file, "FROM_FILE=f\nBOTH=file\n").unwrap();
    let file = file.to_str().unwrap();
    let all = [
        "--cpu",
        "500m",
        "--memory",
        "64Mi",
        "--storage",
        "1Gi",
        "--network",
        "open",
        "--allow",
        "10.0.0.0/8:443",
    ];
    let made = world
        .run(&[&["create", "a1", "--wait", "--env-file", file, "--env", "BOTH=line"][..], &all].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    let wrong = world.run(&["create", "a2", "--memory", "much"]);
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.stderr.contains("resources.memory.limit: Input must be a number of bytes"),
        "{}",
        wrong.stderr
    );
    let secret = world.run(&["create", "a2", "--env", "hunter22"]);
    assert_eq!(secret.stderr, "stockade: --env number 1 must be NAME=value\n");
    let network = world.run(&["create", "a2", "--network", "isolated"]);
    assert!(network.stderr.contains("not available on this server"), "{}", network.stderr);
}

#[test]
fn what_is_not_there_is_said_with_what_to_do() {
    let world = World::start();
    for arguments in
        [&["get", "nope"][..], &["rm", "nope"], &["exec", "nope", "--", "true"], &["shell", "nope"]]
    {
        let said = world.run(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(said.stderr.contains("there is no sandbox \"nope\""), "{}", said.stderr);
        assert!(said.stderr.contains(&format!("ls --url {}` lists", world.url())), "{}", said.stderr);
    }
    let said = world.run(&["logs", "nope"]);
    assert!(said.stderr.contains("Sandbox 'nope' not found"), "{}", said.stderr);
    world.create("a1");
    let said = world.run(&["pause", "a1"]);
    assert!(said.stderr.contains("pausing a sandbox is not available on this backend"), "{}", said.stderr);
}

#[test]
fn a_server_that_is_not_there_is_said_with_what_to_do() {
    let world = World::start();
    let said = world.run(&["ls", "--url", "http://127.0.0.1:1"]);
    assert_eq!(said.code, Some(1));
    for part in ["no answer from http://127.0.0.1:1", "Connection refused", "up` running?", "STOCKADE_URL"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

#[test]
fn the_key_comes_from_a_file_a_variable_or_the_state_directory_and_is_never_shown() {
    let world = World::start();
    let file = world.dir.path().join("key");
    let file = file.to_str().unwrap();
    let code = |mut command: std::process::Command| {
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(KEY), "{said}");
        (output.status.code(), said)
    };
    let mut by_file = world.stockade(&["ls", "--key-file", file]);
    by_file.env_remove("PROVISIONER_API_KEY");
    assert_eq!(code(by_file).0, Some(0));
    let state = world.dir.path().join(".local/state/stockade");
    let without = || {
        let mut command = world.stockade(&["ls", "--state-dir", state.to_str().unwrap()]);
        command.env_remove("PROVISIONER_API_KEY");
        command
    };
    let (failed, said) = code(without());
    assert_eq!(failed, Some(1));
    assert!(said.contains("no key was found") && said.contains("--key-file"), "{said}");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::copy(file, state.join("api-key")).unwrap();
    assert_eq!(code(without()).0, Some(0));
    let mut wrong = world.stockade(&["ls"]);
    wrong.env("PROVISIONER_API_KEY", "another");
    let (failed, said) = code(wrong);
    assert_eq!(failed, Some(1));
    assert!(said.contains("it has another key than the variable PROVISIONER_API_KEY"), "{said}");
}

#[test]
fn a_log_is_printed_as_it_was_written() {
    let world = World::start();
    world.create("a1");
    let said = world.run(&["logs", "a1", "--tail", "7", "--previous"]);
    let expect = format!("first\nLogOptions {{ follow: false, tail_lines: 7, previous: true }}\n{HOSTILE}");
    assert_eq!((said.code, said.stdout), (Some(0), expect), "{}", said.stderr);
    assert_eq!(world.run(&["logs", "a1", "--tail", "-1"]).code, Some(2));
}
