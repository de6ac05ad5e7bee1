//! Writes that fail, and what they leave: on a disk that is full, in directories that forbid it, when the agent or its
//! client ends in the middle.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Agent, Client, eventually};
use serde_json::{Value, json};

const MEBIBYTE: usize = 1024 * 1024;

fn post(client: &mut Client, call: &str, body: &Value) -> Value {
    client.post(&format!("/v1/file/{call}"), body).json()
}

fn write(client: &mut Client, path: &Path, content: &str) -> Value {
    post(client, "write", &json!({ "file": path, "content": content }))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An agent whose home is a tmpfs of two MiB, and that directory as it is seen from here.
fn with_small_disk() -> (Agent, PathBuf) {
    let mut program = Command::new("unshare");
    let script = "for home; do :; done; mount -t tmpfs -o size=2m none \"$home\" && exec \"$@\"";
    program.args([
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_stockade-agent"),
    ]);
    let agent = Agent::start_with(program, &[]);
    let home = format!("/proc/{}/root{}", agent.pid(), agent.home.path().display());
    (agent, home.into())
}

/// The beginning of an upload that says it will send a megabyte, with `sent` bytes of the file.
fn begin_upload(client: &mut Client, path: &Path, sent: usize) {
    let head = format!(
        "--b\r\ncontent-disposition: form-data; name=\"path\"\r\n\r\n{}\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n",
        path.display()
    );
    client.raw(
        format!("POST /v1/file/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 100000000\r\n\r\n{head}")
            .as_bytes(),
    );
    client.raw(&vec![b'u'; sent]);
}

fn upload(client: &mut Client, path: &Path, content: &[u8]) -> Value {
    let head = format!(
        "--b\r\ncontent-disposition: form-data; name=\"path\"\r\n\r\n{}\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n",
        path.display()
    );
    let body = [head.as_bytes(), content, b"\r\n--b--\r\n"].concat();
    client.raw(
        format!("POST /v1/file/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n", body.len())
            .as_bytes(),
    );
    client.raw(&body);
    client.answer().json()
}

#[test]
fn what_a_full_disk_refuses_changes_nothing() {
    let (agent, disk) = with_small_disk();
    let mut client = agent.client();
    let file = agent.home.path().join("file");
    let old = format!("{}\nend\n", "a".repeat(MEBIBYTE));
    assert_eq!(write(&mut client, &file, &old)["success"], true);
    let large = "b".repeat(3 * MEBIBYTE);
    let append = json!({ "file": file, "content": large, "append": true });
    let replace = json!({ "file": file, "old_str": "end", "new_str": large });
    let edit = json!({ "command": "str_replace", "path": file, "old_str": "end", "new_str": large });
    let insert = json!({ "command": "insert", "path": file, "insert_line": 1, "new_str": large });
    let answers = [
        write(&mut client, &file, &large),
        post(&mut client, "write", &append),
        post(&mut client, "replace", &replace),
        post(&mut client, "str_replace_editor", &edit),
        post(&mut client, "str_replace_editor", &insert),
        upload(&mut client, &file, large.as_bytes()),
    ];
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["data"]["error_type"], "no_space_left", "{number}: {}", answer["message"]);
        assert!(answer["message"].as_str().unwrap().contains("the file is as it was"), "{number}: {answer}");
    }
    assert!(std::fs::read_to_string(disk.join("file")).unwrap() == old);
    // What did not exist before does not exist now.
    let created = json!({ "command": "create", "path": agent.home.path().join("new"), "file_text": large });
    for answer in [
        post(&mut client, "str_replace_editor", &created),
        write(&mut client, &agent.home.path().join("new"), &large),
        upload(&mut client, &agent.home.path().join("new"), large.as_bytes()),
    ] {
        assert_eq!(answer["data"]["error_type"], "no_space_left", "{answer}");
    }
    assert_eq!(names(&disk), ["file"]);
}

#[test]
fn without_room_for_both_contents_a_file_is_written_in_place_and_that_is_said() {
    let (agent, disk) = with_small_disk();
    let mut client = agent.client();
    let file = agent.home.path().join("file");
    write(&mut client, &file, &"a".repeat(MEBIBYTE + MEBIBYTE / 2));
    for size in [MEBIBYTE + MEBIBYTE * 3 / 4, MEBIBYTE] {
        let new = "b".repeat(size);
        let answer = write(&mut client, &file, &new);
        assert_eq!(answer["message"], "File written in place", "{answer}");
        assert!(answer["hint"].as_str().unwrap().contains("no room for both"), "{answer}");
        assert!(std::fs::read_to_string(disk.join("file")).unwrap() == new);
    }
    assert_eq!(names(&disk), ["file"]);
}

#[test]
fn what_others_append_while_appends_fail_stays() {
    let (agent, disk) = with_small_disk();
    let mut client = agent.client();
    let file = agent.home.path().join("log");
    write(&mut client, &file, "");
    let count = 2_000;
    let (log, done) = (file.display(), agent.home.path().join("done"));
    let command =
        format!("for i in $(seq {count}); do echo line $i >> {log}; done; mkdir {}", done.display());
    client.post("/v1/bash/exec", &json!({ "command": command, "async_mode": true }));
    let large = json!({ "file": file, "content": "b".repeat(2 * MEBIBYTE), "append": true });
    let mut refused = 0;
    eventually("the other program has ended", || {
        let answer = post(&mut client, "write", &large);
        assert_eq!(answer["data"]["error_type"], "no_space_left", "{answer}");
        refused += 1;
        disk.join("done").is_dir()
    });
    let expected: String = (1..=count).map(|number| format!("line {number}\n")).collect();
    assert!(std::fs::read_to_string(disk.join("log")).unwrap() == expected, "after {refused} appends");
}

#[test]
fn a_reader_sees_the_old_content_or_the_new() {
    const SIZE: usize = 200_000;
    let agent = Agent::start();
    let path = agent.home.path().join("file");
    let mut client = agent.client();
    let content = |number: usize| ["a", "b", "c"][number % 3].repeat(SIZE);
    write(&mut client, &path, &content(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let bytes = std::fs::read(&path).unwrap();
                assert_eq!(bytes.len(), SIZE);
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a mixed file");
                seen += 1;
            }
            seen
        });
        for number in 0..60 {
            let old = content(number)[..1].to_owned();
            let answer = match number % 4 {
                0 => write(&mut client, &path, &content(number + 1)),
                1 => upload(&mut client, &path, content(number + 1).as_bytes()),
                2 => {
                    let new = &content(number + 1)[..1];
                    post(&mut client, "replace", &json!({ "file": path, "old_str": old, "new_str": new }))
                }
                _ => {
                    let (old, new) = (content(number), content(number + 1));
                    let edit =
                        json!({ "command": "str_replace", "path": path, "old_str": old, "new_str": new });
                    post(&mut client, "str_replace_editor", &edit)
                }
            };
            assert_eq!(answer["success"], true, "{}", answer["message"]);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(names(agent.home.path()), ["file"]);
}

#[test]
fn an_upload_that_is_cut_leaves_what_was_there() {
    let mut agent = Agent::start();
    let path = agent.home.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let mut client = agent.client();
    // Its client goes away; the next one waits for the agent to end.
    begin_upload(&mut client, &path, 2 * MEBIBYTE);
    drop(client);
    let descriptors = format!("/proc/{}/fd", agent.pid());
    let holds_one = || {
        let links = std::fs::read_dir(&descriptors)
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.into_iter().any(|link| link.starts_with(agent.home.path()) && link != agent.home.path())
    };
    eventually("the agent lets go of it", || !holds_one());
    assert_eq!(
        (names(agent.home.path()), std::fs::read(&path).unwrap()),
        (vec!["file".to_owned()], b"old".to_vec())
    );
    let mut client = agent.client();
    begin_upload(&mut client, &path, 2 * MEBIBYTE);
    eventually("the upload has begun", holds_one);
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(agent.home.path()), ["file"]);
}

#[test]
fn what_a_crash_has_left_goes_and_what_is_in_use_stays() {
    let agent = Agent::start();
    let home = agent.home.path();
    std::fs::write(home.join(".stockade-write-0123"), "half").unwrap();
    std::fs::write(home.join(".stockade-create-4567"), "half").unwrap();
    let used = std::fs::File::create(home.join(".stockade-write-used")).unwrap();
    rustix::fs::flock(&used, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::fs::create_dir(home.join(".stockade-write-directory")).unwrap();
    write(&mut agent.client(), &home.join("file"), "x");
    assert_eq!(names(home), [".stockade-write-directory", ".stockade-write-used", "file"]);
}

#[test]
fn edits_of_many_callers_at_once_are_all_in_the_file() {
    const CALLERS: usize = 8;
    let agent = Agent::start();
    let path = agent.home.path().join("file");
    let lines: String = (0..CALLERS).map(|number| format!("caller {number}: \n")).collect();
    write(&mut agent.client(), &path, &lines);
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let (agent, path) = (&agent, &path);
            scope.spawn(move || {
                let mut client = agent.client();
                let old = format!("caller {number}: ");
                for _ in 0..20 {
                    let new = format!("{old}x");
                    let answer = match number % 2 {
                        0 => post(&mut client, "replace", &json!({ "file": path, "old_str": old, "new_str": new })),
                        _ => post(
                            &mut client,
                            "str_replace_editor",
                            &json!({ "command": "str_replace", "path": path, "old_str": old, "new_str": new }),
                        ),
                    };
                    assert_eq!(answer["success"], true, "{answer}");
                    let more = json!({ "file": path, "content": format!("from {number}\n"), "append": true });
                    assert_eq!(post(&mut client, "write", &more)["success"], true);
                }
            });
        }
    });
    let text = std::fs::read_to_string(&path).unwrap();
    for number in 0..CALLERS {
        assert!(text.contains(&format!("caller {number}: {}\n", "x".repeat(20))), "{text}");
        assert_eq!(text.matches(&format!("from {number}\n")).count(), 20);
    }
}

/// An agent of an ordinary user. As root it is another one, to whom our files belong to somebody else.
fn ordinary() -> (Agent, u32) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_stockade-agent"));
    let own = rustix::process::geteuid();
    let uid = if own.is_root() { 61_234 } else { own.as_raw() };
    if own.is_root() {
        program.uid(uid).gid(uid);
    }
    let agent = Agent::start_with(program, &[]);
    if own.is_root() {
        chown(agent.home.path(), Some(uid), Some(uid)).unwrap();
    }
    (agent, uid)
}

#[test]
fn a_file_that_its_own_user_may_not_write_is_refused_with_the_remedy() {
    let (agent, uid) = ordinary();
    let mut client = agent.client();
    let path = agent.home.path().join("file");
    write(&mut client, &path, "old");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let append = json!({ "file": path, "content": "x", "append": true });
    for answer in [
        write(&mut client, &path, "new"),
        post(&mut client, "write", &append),
        post(&mut client, "replace", &json!({ "file": path, "old_str": "old", "new_str": "new" })),
        upload(&mut client, &path, b"new"),
    ] {
        assert_eq!(answer["data"]["error_type"], "permission_denied", "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(&format!("user {uid}")), "{answer}");
        assert!(answer["hint"].as_str().unwrap().contains("chmod u+w"), "{answer}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

/// What only root can arrange; an ordinary user meets the same in files of root.
#[test]
fn a_file_of_another_user_gives_way_where_its_directory_allows_it_and_is_explained_elsewhere() {
    let (agent, uid) = ordinary();
    let mut client = agent.client();
    if !rustix::process::geteuid().is_root() {
        let answer = write(&mut client, Path::new("/etc/passwd"), "new");
        assert_eq!(answer["data"]["error_type"], "permission_denied", "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("user 0"), "{answer}");
        return;
    }
    let foreign = |name: &str, mode: u32| {
        let path = agent.home.path().join(name);
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let (written, appended, uploaded) = (foreign("w", 0o640), foreign("a", 0o644), foreign("u", 0o644));
    let append = json!({ "file": appended, "content": "+", "append": true });
    for answer in [
        write(&mut client, &written, "new"),
        post(&mut client, "write", &append),
        upload(&mut client, &uploaded, b"new"),
        post(
            &mut client,
            "replace",
            &json!({ "file": foreign("r", 0o644), "old_str": "old", "new_str": "new" }),
        ),
    ] {
        assert_eq!(answer["success"], true, "{answer}");
        assert!(answer["hint"].as_str().unwrap().contains("belonged to user 0"), "{answer}");
    }
    assert_eq!(std::fs::read(&written).unwrap(), b"new");
    assert_eq!(std::fs::read(&appended).unwrap(), b"old+");
    let metadata = std::fs::metadata(&written).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (uid, 0o640));
    // Nobody may write it: it is meant to stay. A sticky directory protects what is in it.
    let protected = foreign("p", 0o444);
    std::fs::create_dir(agent.home.path().join("sticky")).unwrap();
    std::fs::set_permissions(agent.home.path().join("sticky"), PermissionsExt::from_mode(0o1777)).unwrap();
    for path in [protected, foreign("sticky/f", 0o644)] {
        let answer = write(&mut client, &path, "new");
        assert_eq!(answer["data"]["error_type"], "permission_denied", "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("user 0 (root)") && message.contains(&uid.to_string()), "{answer}");
        assert!(answer["hint"].is_string());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
    assert_eq!(names(&agent.home.path().join("sticky")), ["f"]);
}

#[test]
fn a_directory_that_allows_no_new_file_has_its_files_written_in_place() {
    let (agent, _) = ordinary();
    let mut client = agent.client();
    let directory = agent.home.path().join("closed");
    let path = directory.join("file");
    for content in ["old", "a longer one"] {
        write(&mut client, &path, content);
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o555)).unwrap();
        for answer in [write(&mut client, &path, "new"), upload(&mut client, &path, b"and newer")] {
            assert!(answer["message"].as_str().unwrap().ends_with("in place"), "{answer}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"and newer");
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o555)).unwrap();
    let answer = write(&mut client, &directory.join("new"), "x");
    assert!(answer["message"].as_str().unwrap().contains("its directory"), "{answer}");
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn what_cannot_be_read_is_an_error_at_the_root_and_counted_below() {
    let (agent, _) = ordinary();
    let mut client = agent.client();
    let tree = agent.home.path().join("tree");
    write(&mut client, &tree.join("open/file"), "needle");
    for name in ["closed", "open/closed"] {
        std::fs::create_dir(tree.join(name)).unwrap();
        std::fs::set_permissions(tree.join(name), PermissionsExt::from_mode(0o000)).unwrap();
    }
    write(&mut client, &tree.join("open/secret"), "needle");
    std::fs::set_permissions(tree.join("open/secret"), PermissionsExt::from_mode(0o000)).unwrap();
    let calls = [
        ("grep", json!({ "pattern": "needle" })),
        ("find", json!({ "glob": "**" })),
        ("glob", json!({ "pattern": "**" })),
        ("list", json!({ "recursive": true })),
    ];
    for (call, mut body) in calls {
        body["path"] = json!(tree.join("closed"));
        let answer = post(&mut client, call, &body);
        assert_eq!(answer["data"]["error_type"], "permission_denied", "{call}: {answer}");
        body["path"] = json!(tree);
        let answer = post(&mut client, call, &body);
        assert_eq!(answer["success"], true, "{call}: {answer}");
        let (count, expected) = match call {
            "grep" => (&answer["data"]["skipped"]["unreadable"], 3),
            _ => (&answer["data"]["unreadable"], 2),
        };
        assert_eq!(*count, expected, "{call}: {answer}");
        assert!(answer["hint"].as_str().unwrap().contains(&expected.to_string()), "{call}: {answer}");
    }
    for name in ["closed", "open/closed"] {
        std::fs::set_permissions(tree.join(name), PermissionsExt::from_mode(0o700)).unwrap();
    }
}

#[test]
fn of_a_large_write_there_is_one_copy() {
    const SIZE: usize = 30_000_000;
    let agent = Agent::start();
    let mut client = agent.client();
    let path = agent.home.path().join("file");
    write(&mut client, &path, "x");
    // A megabyte of base64 without padding is three quarters of it.
    let base64 = "QUJD".repeat(SIZE / 3);
    let raw = "A".repeat(SIZE);
    for (encoding, content) in [("base64", &base64), ("raw", &raw), ("utf-8", &raw)] {
        for append in [false, true] {
            agent.forget_peak();
            let before = agent.resident();
            let body = json!({ "file": path, "content": content, "encoding": encoding, "append": append });
            assert_eq!(post(&mut client, "write", &body)["data"]["bytes_written"], SIZE);
            let used = agent.peak().saturating_sub(before) * 1024;
            // What was sent, and half of it for all else.
            assert!(used < content.len() as u64 * 3 / 2, "{encoding}, append {append}: {used} bytes");
        }
    }
    let content = std::fs::read(&path).unwrap();
    assert!(content.len() == 2 * SIZE && content.iter().all(|byte| *byte == b'A'));
}
