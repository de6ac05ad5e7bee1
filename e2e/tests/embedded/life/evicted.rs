//! A sandbox whose files take too much: whoever waits is told, and what it has can be read until it is deleted.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_api::client::ClientError;
use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest};
use stockade_e2e::{http, wait};

use super::server::{Server, with_each_server, with_server};
use super::usual::kill;
use crate::sandbox::Sandbox;

/// How long something may take that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// How long after its limit was reached a sandbox is stopped at the latest, where it takes a second: the machine may be
/// busy.
const STOP: Duration = Duration::from_secs(8);

fn request(id: &str) -> CreateSandbox {
    let storage = QuantityPair { request: None, limit: Some("32Mi".to_owned()) };
    let resources = Some(ResourceRequest { ephemeral_storage: storage, ..ResourceRequest::default() });
    CreateSandbox { resources, ..CreateSandbox::new(id) }
}

async fn made(server: &Server, id: &str) -> Sandbox {
    let made = server.client().create(&request(id)).await.unwrap();
    Sandbox::new(id.to_owned(), made.sandbox_url.into_owned())
}

async fn is_evicted(server: &Server, id: &str) {
    wait::until("the limit is enforced", SOON, async || {
        let reason = server.client().get(id).await.unwrap().unwrap().reason;
        if reason.as_deref() == Some("Evicted") { Ok(()) } else { Err(format!("{reason:?}")) }
    })
    .await;
}

/// A sandbox that has a file, and was stopped for another. What its last caller was told.
async fn mk_evicted(server: &Server, id: &str) -> (Sandbox, Value) {
    let sandbox = made(server, id).await;
    sandbox.sh("echo precious > /home/gem/kept; echo shared > /mnt/user-data/kept").await;
    let fill =
        json!({ "command": "head -c 60M /dev/zero > /home/gem/large; sleep 1000", "hard_timeout": 60 });
    let told = sandbox.post("/v1/bash/exec", &fill).await.unwrap();
    (sandbox, told)
}

async fn download(sandbox: &Sandbox, path: &str) -> (u16, String) {
    let answer = http::get(&format!("{}/v1/file/download?path={path}", sandbox.url)).await.unwrap();
    (answer.status, answer.text())
}

/// Its files can be read, and nothing else works.
async fn only_reads(sandbox: &Sandbox) {
    assert_eq!(download(sandbox, "/home/gem/kept").await, (200, "precious\n".to_owned()));
    let read = json!({ "file": "/mnt/user-data/kept" });
    assert_eq!(sandbox.post("/v1/file/read", &read).await.unwrap()["data"]["content"], "shared\n");
    let listed = sandbox.post("/v1/file/list", &json!({ "path": "/home/gem" })).await.unwrap();
    assert!(listed.to_string().contains("large"), "{listed}");
    for (path, body) in [
        ("/v1/bash/exec", json!({ "command": "true" })),
        ("/v1/shell/exec", json!({ "command": "true" })),
        ("/v1/code/execute", json!({ "language": "python", "code": "1" })),
        ("/v1/file/write", json!({ "file": "/mnt/user-data/new", "content": "x" })),
        ("/v1/file/str_replace_editor", json!({ "command": "create", "path": "/tmp/x", "file_text": "x" })),
        ("/mcp", json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })),
    ] {
        let refused = sandbox.post(path, &body).await.unwrap();
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains("only shows its files") && message.contains("32Mi"), "{path}: {refused}");
        assert_eq!(refused["success"], false, "{refused}");
    }
    let preview = http::get(&format!("{}/proxy/8000/", sandbox.url)).await.unwrap();
    assert_ne!(preview.status, 200);
}

#[test]
fn a_caller_is_told_and_what_is_there_can_be_read_until_it_is_deleted() {
    with_each_server(async |server| {
        let client = server.client();
        let (sandbox, told) = mk_evicted(server, "s1").await;
        assert_eq!((&told["success"], &told["reason"]), (&false.into(), &"Evicted".into()), "{told}");
        assert!(told["message"].as_str().unwrap().contains("more than its limit of 32Mi"), "{told}");
        let found = client.get("s1").await.unwrap().unwrap();
        assert_eq!((found.status.as_ref(), found.ready), ("Failed", false), "{found:?}");
        assert_eq!(found.sandbox_url, sandbox.url);
        only_reads(&sandbox).await;
        // Nobody asked for the end of its files: a create finds it as it is.
        let again = client.create(&request("s1")).await.unwrap();
        assert_eq!((again.sandbox_url.as_ref(), again.reason.as_deref()), (&*sandbox.url, Some("Evicted")));
        for refused in [client.resume("s1").await, client.pause("s1").await] {
            let refused = refused.unwrap_err();
            assert!(matches!(&refused, ClientError::Refused { status: 409, .. }), "{refused}");
            assert!(
                refused.to_string().contains("Evicted") && refused.to_string().contains("32Mi"),
                "{refused}"
            );
        }
        only_reads(&sandbox).await;
        // One that was deleted is made anew, as ever.
        client.delete("s1").await.unwrap();
        server.nothing_left().await;
        let fresh = made(server, "s1").await;
        assert_eq!(fresh.sh("ls -A /home/gem/kept; echo runs").await.stdout, "runs\n");
    });
}

#[test]
fn its_files_outlive_the_server_its_agent_and_the_machines_restart() {
    with_server(async |server| {
        let (sandbox, _) = mk_evicted(server, "s1").await;
        only_reads(&sandbox).await;
        let reader = server.main_process("s1");
        kill(reader);
        wait::until("its end is noticed", SOON, async || {
            let written = server.written_process("s1");
            if written == Some(reader) { Err(format!("{written:?}")) } else { Ok(()) }
        })
        .await;
        only_reads(&sandbox).await;
        assert_ne!(server.main_process("s1"), reader);
        server.kill().await;
        server.start_again().await;
        only_reads(&sandbox).await;
        server.reboot(&["s1"]).await;
        only_reads(&sandbox).await;
        let found = server.client().get("s1").await.unwrap().unwrap();
        assert_eq!((found.status.as_ref(), found.reason.as_deref()), ("Failed", Some("Evicted")));
    });
}

#[test]
fn what_it_left_running_and_what_it_left_behind_runs_no_more() {
    with_server(async |server| {
        let sandbox = made(server, "s1").await;
        // Programs of its own where the agent might look for the system's, and processes in sessions of their own.
        let script = "mkdir -p ~/.local/bin; for p in bash sh git python3 node; do printf '#!/bin/sh\necho ran >> \
                      /mnt/user-data/ran\n' > ~/.local/bin/$p; chmod +x ~/.local/bin/$p; done; \
                      echo precious > ~/kept; echo shared > /mnt/user-data/kept; \
                      for i in 1 2 3; do setsid sleep 1000 & done; ln -s /etc/shadow ~/link; \
                      head -c 60M /dev/zero > ~/large; sleep 1000";
        sandbox.start(script).await;
        is_evicted(server, "s1").await;
        only_reads(&sandbox).await;
        assert_eq!(server.agents(), 1);
        let reader = server.main_process("s1");
        let children = std::fs::read_to_string(format!("/proc/{reader}/task/{reader}/children")).unwrap();
        assert_eq!(children, "", "nothing runs but the agent");
        assert_ne!(download(&sandbox, "/home/gem/link").await.0, 200);
        assert_eq!(download(&sandbox, "/mnt/user-data/ran").await.0, 404);
        // Not even its agent could write.
        let mounts = std::fs::read_to_string(format!("/proc/{reader}/mountinfo")).unwrap();
        let writable = mounts.lines().filter(|line| {
            let options = line.split(' ').nth(5).unwrap_or_default();
            options.split(',').any(|option| option == "rw")
        });
        assert_eq!(writable.collect::<Vec<_>>(), Vec::<&str>::new());
    });
}

#[test]
fn it_is_stopped_within_moments_of_its_limit() {
    with_server(async |server| {
        let client = server.client();
        let sandbox = made(server, "s1").await;
        // Just below its limit, and measured there.
        sandbox.sh("head -c 28M /dev/zero > ~/below; sync ~/below").await;
        wait::until("it was measured", SOON, async || {
            let used = client.get("s1").await.unwrap().unwrap().disk_used_bytes;
            if used.is_some_and(|used| used > 28 << 20) { Ok(()) } else { Err(format!("{used:?}")) }
        })
        .await;
        let script = "head -c 6M /dev/zero > ~/above; date +%s.%N > /mnt/user-data/when; sleep 1000";
        sandbox.start(script).await;
        is_evicted(server, "s1").await;
        let when = download(&sandbox, "/mnt/user-data/when").await.1;
        let events = client.events("s1").await.unwrap().events;
        let evicted = events.iter().find(|event| event.reason == "Evicted").unwrap().last_seen.unwrap();
        let took = evicted.as_microsecond() as f64 / 1e6 - when.trim().parse::<f64>().unwrap();
        assert!(took < STOP.as_secs_f64(), "{took} s");
    });
}
