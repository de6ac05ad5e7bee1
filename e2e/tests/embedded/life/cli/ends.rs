//! Begin and end of a server, as somebody at a shell has them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::person::{Person, as_each_person};
use super::{json, status_of};

/// How long a server may take to serve.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn commands_given_with_up_in_one_line_wait_for_it() {
    as_each_person(|person| {
        let up = format!("$S up --listen {} $D > /dev/null 2>&1 &", person.address());
        let made = person.does(&format!("{up} $S create a1 --wait --json $D"));
        assert_eq!(json(&made.stdout)["ready"], true, "{made:?}");
        person.does("$S down $D");
        // The others wait in the same way, each by itself.
        assert!(person.does(&format!("{up} $S ls $D")).stdout.contains("ID"));
        person.does("$S down $D");
        let url =
            format!("--url http://{} --key-file '{}/api-key'", person.address(), person.state().display());
        assert_eq!(json(&person.does(&format!("{up} $S ls --json {url}")).stdout)["count"], 0);
        person.does("$S down $D");
        // And hear soon that there is none.
        let began = Instant::now();
        let refused = person.fails("$S ls $D");
        assert!(refused.stderr.contains("no server runs for"), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

/// One answer's status; `None` when the connection was cut.
fn ask(connection: &mut BufReader<TcpStream>, path: &str, key: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).ok()?;
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.get(..3)?.parse().ok();
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        } else if line.is_empty() {
            connection.read_exact(&mut vec![0; length]).ok()?;
            return status;
        }
    }
}

#[test]
fn no_request_is_cut_while_a_server_starts() {
    as_each_person(|person| {
        let _up = person.up();
        let end = Instant::now() + DEADLINE;
        let connect = || loop {
            match TcpStream::connect(person.address()) {
                Ok(stream) => return BufReader::new(stream),
                Err(error) => assert!(Instant::now() < end, "it does not listen: {error}"),
            }
        };
        let (mut busy, mut idle) = (connect(), connect());
        let mut seen = Vec::new();
        while seen.last() != Some(&200) {
            // It listens before it has made its key.
            let key = std::fs::read_to_string(person.state().join("api-key")).unwrap_or_default();
            let status = ask(&mut busy, "/api/sandboxes", key.trim()).expect("an answer to every request");
            assert!([200, 503].contains(&status), "{status} after {seen:?}");
            assert!(Instant::now() < end, "it does not serve: {seen:?}");
            seen.push(status);
        }
        // One that was opened at the beginning and says something only now.
        let key = std::fs::read_to_string(person.state().join("api-key")).unwrap();
        assert_eq!(ask(&mut idle, "/api/sandboxes", key.trim()), Some(200));
    });
}

/// What `down --purge` says that it will not remove; the server and its sandbox are as before.
fn refusal(person: &Person, url: &str) -> String {
    let refused = person.fails("$S down --purge --yes $D");
    person.does(&format!("curl -sSf {url}/v1/sandbox"));
    assert!(status_of(person, "kept")["ready"].as_bool().unwrap(), "the server serves");
    assert!(person.state().join("api-key").exists());
    refused.stderr
}

#[test]
fn a_directory_that_is_not_removed_keeps_its_server_and_its_sandboxes() {
    as_each_person(|person| {
        let mut up = person.up();
        up.until("and this ends them:");
        let url = status_of_made(person);
        let state = person.state();
        // What others may enter.
        std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(refusal(person, &url).contains("chmod 700"));
        std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700)).unwrap();
        // What is somebody's own.
        std::fs::write(state.join("notes.txt"), "mine").unwrap();
        let said = refusal(person, &url);
        assert!(said.contains("holds notes.txt"), "{said}");
        std::fs::remove_file(state.join("notes.txt")).unwrap();
        // What a newer version wrote.
        let newer = state.join("sandboxes/newer");
        std::fs::create_dir(&newer).unwrap();
        std::fs::write(newer.join("record.json"), "{\"version\": 99}").unwrap();
        let said = refusal(person, &url);
        assert!(said.contains("has format 99"), "{said}");
        std::fs::remove_dir_all(&newer).unwrap();
        if person.is_root() {
            let data = state.join("data");
            std::fs::create_dir_all(&data).unwrap();
            let mounted = format!("mount -t tmpfs none '{}'", data.display());
            person.does(&mounted);
            let said = refusal(person, &url);
            person.does(&format!("umount '{}'", data.display()));
            assert!(said.contains("something is mounted at"), "{said}");
        }
        let ended = person.does("$S down --purge --yes $D");
        assert!(ended.stdout.contains("1 sandbox ended"), "{ended:?}");
        assert!(!state.exists());
        let nothing = person.does("$S down --purge --yes $D");
        assert!(nothing.stdout.contains("nothing to end"), "{nothing:?}");
    });
}

fn status_of_made(person: &Person) -> String {
    let made = json(&person.does("$S create kept --wait --json $D").stdout);
    made["sandbox_url"].as_str().unwrap().to_owned()
}
