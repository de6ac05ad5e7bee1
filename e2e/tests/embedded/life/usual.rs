//! What happens every day.

use std::time::Duration;

use serde_json::json;
use stockade_api::client::ClientError;
use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest, Sandbox as Answer};
use stockade_e2e::{http, wait};

use super::server::with_server;
use crate::sandbox::Sandbox;

/// How long something may take that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_sandbox_is_made_used_found_and_gone_without_a_trace() {
    with_server(async |server| {
        let client = server.client();
        let made = client.create(&CreateSandbox::new("s1")).await.unwrap();
        assert_eq!((made.status.as_ref(), made.ready), ("Running", true), "{made:?}");
        let answer = http::get(&format!("{}/v1/sandbox", made.sandbox_url)).await.unwrap();
        assert_eq!(answer.status, 200);
        let found = client.get("s1").await.unwrap().unwrap();
        // Its files may have been measured meanwhile.
        assert_eq!(
            Answer { disk_used_bytes: None, ..found },
            Answer { disk_used_bytes: None, ..made.clone() }
        );
        assert_eq!(client.list().await.unwrap().count, 1);
        assert_eq!(client.reconcile("s1").await.unwrap().sandbox_url.as_deref(), Some(&*made.sandbox_url));
        client.delete("s1").await.unwrap();
        assert_eq!(client.get("s1").await.unwrap(), None);
        http::get(&format!("{}/v1/sandbox", made.sandbox_url)).await.unwrap_err();
        server.nothing_left().await;
    });
}

#[test]
fn twenty_creates_of_one_id_make_one_sandbox() {
    with_server(async |server| {
        let client = server.client();
        let request = CreateSandbox::new("s1");
        let made = futures::future::join_all((0..20).map(|_| client.create(&request))).await;
        let url = |answer: &Result<Answer<'_>, _>| answer.as_ref().unwrap().sandbox_url.clone().into_owned();
        assert!(made.iter().all(|answer| url(answer) == url(&made[0])), "{made:?}");
        assert_eq!((server.agents(), server.open_ports()), (1, 1));
        let other = CreateSandbox { user_id: Some("other".into()), ..CreateSandbox::new("s1") };
        let refused = client.create(&other).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 409, .. }), "{refused}");
    });
}

#[test]
fn a_create_after_a_delete_is_a_fresh_sandbox() {
    with_server(async |server| {
        let client = server.client();
        let request = CreateSandbox::new("s1");
        let mut seen = Vec::new();
        for _ in 0..5 {
            let made = client.create(&request).await.unwrap();
            let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
            assert_eq!(sandbox.sh("ls /home/gem/old; touch /home/gem/old").await.stdout, "");
            let truth = client.reconcile("s1").await.unwrap();
            assert!(!seen.contains(&truth.incarnation_id), "each is another one");
            seen.push(truth.incarnation_id);
            client.delete("s1").await.unwrap();
        }
    });
}

#[test]
fn a_paused_sandbox_wakes_for_a_caller_also_while_no_server_is_there() {
    with_server(async |server| {
        let client = server.client();
        let url = client.create(&CreateSandbox::new("s1")).await.unwrap().sandbox_url;
        for server_is_dead in [false, true] {
            let paused = client.pause("s1").await.unwrap();
            assert_eq!((paused.status.as_ref(), paused.reason.as_deref()), ("Running", Some("Paused")));
            if server_is_dead {
                server.kill().await;
            }
            assert_eq!(http::get(&format!("{url}/v1/sandbox")).await.unwrap().status, 200);
            if server_is_dead {
                server.start_again().await;
            }
            wait::until("it is not paused any more", SOON, async || {
                let reason = client.get("s1").await.unwrap().unwrap().reason;
                if reason.is_none() { Ok(()) } else { Err(format!("{reason:?}")) }
            })
            .await;
        }
        client.pause("s1").await.unwrap();
        assert_eq!(client.resume("s1").await.unwrap().reason, None);
        client.pause("s1").await.unwrap();
        client.delete("s1").await.unwrap();
        server.nothing_left().await;
    });
}

#[test]
fn its_files_are_there_when_it_is_started_again_and_its_end_is_told() {
    with_server(async |server| {
        let client = server.client();
        let url = client.create(&CreateSandbox::new("s1")).await.unwrap().sandbox_url.into_owned();
        let sandbox = Sandbox::new("s1".to_owned(), url);
        sandbox.sh("echo kept > /home/gem/file; echo shared > /mnt/user-data/file").await;
        let first = server.main_process("s1");
        kill(first);
        let ended = wait::until("its end is noticed", SOON, async || {
            let events = client.events("s1").await.unwrap().events;
            events.into_iter().find(|event| event.reason == "Ended").ok_or("not yet")
        })
        .await;
        assert!(ended.message.contains("signal 9"), "{ended:?}");
        // The port stays open: who connects now waits until it runs again.
        let read = sandbox.sh("cat /home/gem/file /mnt/user-data/file").await;
        assert_eq!(read.stdout, "kept\nshared\n");
        assert_ne!(server.main_process("s1"), first);
    });
}

#[test]
fn what_ends_again_and_again_fails_and_a_create_replaces_it() {
    with_server(async |server| {
        let client = server.client();
        client.create(&CreateSandbox::new("s1")).await.unwrap();
        let failed = wait::until("it is given up", Duration::from_secs(60), async || {
            let sandbox = client.get("s1").await.unwrap().unwrap();
            if sandbox.status == "Failed" {
                return Ok(sandbox);
            }
            // Its end may be written down since the answer was.
            if let Some(process) = server.written_process("s1").filter(|_| sandbox.ready) {
                kill(process);
            }
            Err(sandbox.status)
        })
        .await;
        assert_eq!(failed.reason.as_deref(), Some("CrashLoopBackOff"), "{failed:?}");
        // Longer than this a request would wait for one that may start.
        let url = format!("{}/v1/sandbox", failed.sandbox_url);
        let told = tokio::time::timeout(Duration::from_secs(20), http::get(&url)).await.unwrap().unwrap();
        assert_eq!((told.status, &told.json()["reason"]), (503, &"CrashLoopBackOff".into()), "{told:?}");
        let again = client.create(&CreateSandbox::new("s1")).await.unwrap();
        assert_eq!(again.status, "Running", "{again:?}");
    });
}

/// Commands have less memory than the whole, so this takes a request that the agent itself has to hold.
#[test]
fn an_agent_that_ends_for_want_of_memory_is_told_as_such_and_started_again() {
    with_server(async |server| {
        let client = server.client();
        let memory = QuantityPair { request: None, limit: Some("32Mi".to_owned()) };
        let resources = Some(ResourceRequest { memory, ..ResourceRequest::default() });
        let made = client.create(&CreateSandbox { resources, ..CreateSandbox::new("s1") }).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let large = json!({ "file": "/tmp/large", "content": "x".repeat(60 << 20) });
        // Where the connection lasts long enough, the answer says so.
        if let Ok(told) = sandbox.post("/v1/file/write", &large).await {
            assert_eq!(told["reason"], "OOMKilled", "{told}");
        }
        let ended = wait::until("its end is noticed", SOON, async || {
            let events = client.events("s1").await.unwrap().events;
            events.into_iter().find(|event| event.reason == "OOMKilled").ok_or("not yet")
        })
        .await;
        assert!(ended.message.contains("more memory than its limit"), "{ended:?}");
        assert_eq!(sandbox.sh("echo again").await.stdout, "again\n");
    });
}

#[test]
fn a_relay_without_sandboxes_ends_with_its_server() {
    with_server(async |server| {
        let client = server.client();
        client.create(&CreateSandbox::new("s1")).await.unwrap();
        server.end().await;
        assert_eq!(server.helpers("stockade-relay").len(), 1, "it has a sandbox");
        server.start_again().await;
        client.delete("s1").await.unwrap();
        server.nothing_left().await;
        server.end().await;
        wait::until("the relay ends", SOON, async || {
            let relays = server.helpers("stockade-relay");
            if relays.is_empty() { Ok(()) } else { Err(format!("{relays:?}")) }
        })
        .await;
        server.start_again().await;
        assert!(client.create(&CreateSandbox::new("s2")).await.unwrap().ready);
    });
}

/// Ends a process of a sandbox from outside. It may have ended already.
pub(super) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
