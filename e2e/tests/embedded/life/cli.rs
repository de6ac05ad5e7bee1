//! The command line as somebody uses it: `up` on a terminal, and every line it prints run as it stands.

mod ends;
mod person;

use serde_json::Value;

use self::person::{Person, as_each_person};

/// The lines among what was printed that are commands of ours.
fn printed_commands(text: &str, program: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.starts_with(program) || line.starts_with("curl ")).map(str::to_owned).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn status_of(person: &Person, id: &str) -> Value {
    json(&person.does(&format!("$S get --json $D {id}")).stdout)
}

#[test]
fn every_line_that_up_prints_works_as_it_stands() {
    as_each_person(|person| {
        let mut up = person.up();
        let welcome = up.until(&format!("down --state-dir '{}'\r\n", person.state().display()));
        let commands = printed_commands(&welcome, person.program());
        assert_eq!(commands.len(), 3, "{welcome}");
        let made = person.does(&commands[0]);
        assert!(made.stdout.contains("Linux"), "{made:?}");
        let again = person.does(&commands[1]);
        assert_eq!(json(&again.stdout)["sandbox_id"], "demo");
        // What `up` says while it serves.
        up.until("+ demo");
        up.interrupt();
        let farewell = up.until_end();
        let lines = printed_commands(&farewell, person.program());
        let [.., down, again, down_again] = &lines[..] else { panic!("{lines:?} in {farewell:?}") };
        assert_eq!(down, down_again);
        // The server is gone and nobody gets its key; the sandbox is there, and so is its address.
        let refused = person.fails("$S ls $D");
        assert!(refused.stderr.contains("no server runs for"), "{refused:?}");
        let up = person.up_by(again);
        let shown = status_of(person, "demo");
        let url = shown["sandbox_url"].as_str().unwrap();
        person.does(&format!("curl -sSf {url}/v1/sandbox"));
        drop(up);
        person.does(down);
        person.fails(&format!("curl -sSf --max-time 5 {url}/v1/sandbox"));
    });
}

#[test]
fn sandboxes_outlive_the_server_and_not_the_end_of_all() {
    as_each_person(|person| {
        let mut up = person.up();
        up.until("and this ends them:");
        let made = json(&person.does("$S create kept --wait --json $D").stdout);
        let url = made["sandbox_url"].as_str().unwrap().to_owned();
        let second = person.fails("$S up --listen 127.0.0.1:0 $D");
        assert!(second.stderr.contains("is in use by another server"), "{second:?}");
        up.interrupt();
        up.until_end();
        person.does(&format!("curl -sSf {url}/v1/sandbox"));
        let mut up = person.up();
        up.until("and this ends them:");
        assert_eq!(status_of(person, "kept")["sandbox_url"], url);
        assert_eq!(status_of(person, "kept")["created_at"], made["created_at"]);
        person.does("$S down $D");
        up.until_end();
        assert!(person.state().join("api-key").exists(), "without --purge the state stays");
        let refused = person.fails("$S down --purge $D < /dev/null");
        assert!(refused.stderr.contains("--yes"), "{refused:?}");
        // On a terminal it asks.
        let mut asked = person.on_terminal("$S down --purge $D");
        asked.until("[y/N]");
        asked.types("n\r");
        asked.until_end();
        assert!(person.state().exists());
        let mut asked = person.on_terminal("$S down --purge $D");
        asked.until("[y/N]");
        asked.types("y\r");
        asked.until_end();
        assert!(!person.state().exists());
    });
}

#[test]
fn commands_and_their_json_say_the_same() {
    as_each_person(|person| {
        let mut up = person.up();
        up.until("and this ends them:");
        let made = json(&person.does("$S create a1 --wait --json $D").stdout);
        assert_eq!((&made["ready"], &made["backend"]), (&true.into(), &"embedded".into()));
        assert!(person.does("$S ls $D").stdout.contains("a1"));
        assert_eq!(json(&person.does("$S ls --json $D").stdout)["count"], 1);
        assert!(person.does("$S get $D a1").stdout.contains(made["sandbox_url"].as_str().unwrap()));
        let (code, paused) = person.ends_with("$S pause $D a1");
        if code == Some(0) {
            assert!(paused.stdout.contains("Paused"), "{paused:?}");
            assert_eq!(json(&person.does("$S resume --json $D a1").stdout)["reason"], Value::Null);
            assert_eq!(json(&person.does("$S pause --json $D a1").stdout)["reason"], "Paused");
        } else {
            // Without control groups of its own a user can pause nothing, and hears that.
            assert!(!person.is_root() && paused.stderr.contains("cannot be paused here"), "{paused:?}");
        }
        assert_eq!(person.does("$S exec $D a1 -- sh -c 'echo out; exit 0'").stdout, "out\n", "it wakes");
        assert_eq!(person.ends_with("$S exec $D a1 -- sh -c 'exit 7'").0, Some(7));
        person.does("$S logs $D a1");
        let mut shell = person.on_terminal("$S shell $D a1; echo \"ended $?\"");
        shell.until("\u{1b}[?2004h");
        shell.types("echo $((40 + 2)); exit 5\r");
        shell.until("\r42");
        shell.until("ended 5");
        assert!(person.fails("$S get $D none").stderr.contains("ls"));
        assert_eq!(json(&person.does("$S rm --json $D a1").stdout)["ok"], true);
        person.fails("$S rm $D a1");
    });
}

#[test]
fn exec_is_exact_through_a_real_sandbox() {
    as_each_person(|person| {
        let mut up = person.up();
        up.until("and this ends them:");
        person.does("$S create a1 --wait $D");
        let script = "head -c 50000000 /dev/urandom > ~/file; cat ~/file; exit 0";
        let sum = person.does(&format!("$S exec $D a1 -- sh -c '{script}' | sha256sum")).stdout;
        let truth = person.does("$S exec $D a1 -- sh -c 'sha256sum < ~/file'").stdout;
        assert_eq!(sum, truth);
        // A pipe to a reader that has enough ends the command.
        let (code, some) = person.ends_with("$S exec $D a1 -- yes lonely | head -n 2");
        assert_eq!(
            (code, &*some.stdout),
            (Some(141), "lonely\nlonely\n"),
            "as SIGPIPE would have it: {some:?}"
        );
        person.does("until ! $S exec $D a1 -- pgrep -f '[y]es lonely'; do sleep 0.2; done");
    });
}

#[test]
fn whoever_has_read_enough_ends_a_command_as_a_broken_pipe_does() {
    as_each_person(|person| {
        let mut up = person.up();
        up.until("and this ends them:");
        person.does("$S create a1 --wait $D");
        let plan = "$S explain $D - <<< '{\"sandbox_id\":\"demo\"}'";
        let lines = ["$S ls $D", "$S ls --json $D", "$S get $D a1", "$S get --json $D a1", plan];
        for line in
            lines.into_iter().chain(["$S exec $D a1 -- echo x", "$S exec $D a1 -- sh -c 'echo x; exit 3'"])
        {
            // A pipe that nobody reads any more.
            let unread = "d=$(mktemp -d); mkfifo $d/pipe; exec 3<>$d/pipe 4>$d/pipe 3<&-; rm -r $d;";
            let (code, said) = person.ends_with(&format!("{unread} {line} >&4"));
            assert_eq!((code, &*said.stderr), (Some(141), ""), "{line}");
        }
        // What a command leaves running when it ends goes on; what is ended with its caller does not.
        person.does(
            "$S exec $D a1 -- sh -c 'setsid sleep 4711 > /dev/null 2>&1 & sleep 4711 > /dev/null 2>&1 &'",
        );
        person.does("$S exec $D a1 -- sh -c 'test $(pgrep -fc \"^sleep 4711\") = 2'");
        person.ends_with("timeout -s INT 2 $S exec $D a1 -- sh -c 'setsid sleep 4712 & sleep 4712'");
        person.does("until ! $S exec $D a1 -- pgrep -f '^sleep 4712'; do sleep 0.2; done");
    });
}

#[test]
fn what_would_happen_is_said_without_doing_it() {
    as_each_person(|person| {
        let explain = "$S explain $D - <<< '{\"sandbox_id\":\"demo\"}'";
        let steps = person.does(explain).stdout;
        assert!(steps.lines().count() > 10, "{steps}");
        let twin = json(&person.does("$S explain --json $D - <<< '{\"sandbox_id\":\"demo\"}'").stdout);
        assert_eq!(twin.as_array().unwrap().len(), steps.lines().count());
        let wrong = person.fails("$S explain $D - <<< '{\"sandbox_id\":\"A_b\"}'");
        assert!(wrong.stderr.contains("sandbox_id"), "{wrong:?}");
        assert!(!person.state().join("sandboxes").exists(), "nothing is made");
        let (code, said) = person.ends_with("$S doctor --backend embedded --json $D");
        let findings = json(&said.stdout);
        let fails = findings.as_array().unwrap().iter().any(|finding| finding["level"] == "fail");
        assert_eq!(code, Some(i32::from(fails)), "{findings}");
        assert!(!fails, "this machine makes sandboxes: {findings}");
    });
}
