//! Sandboxes that are prepared before anybody asks for them.

use std::time::Duration;

use stockade_api::{CreateSandbox, NetworkRequest, ResourceRequest};
use stockade_e2e::{http, wait};

use super::asked::{at_most, refusal};
use super::server::{Server, is_waiting, with_each_server, with_server_of, with_server_told};
use super::usual::kill;
use crate::sandbox::Sandbox;

/// How long something may take that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// How many there are unless told otherwise.
const USUAL: usize = 4;

async fn metric(server: &Server, name: &str) -> u64 {
    let text = http::get(&format!("http://127.0.0.1:{}/metrics", server.ports.api)).await.unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until so many wait.
async fn ready(server: &Server, count: usize) {
    wait::until("sandboxes are prepared ahead", SOON, async || {
        let found = metric(server, "stockade_embedded_standby").await;
        if found == count as u64 { Ok(()) } else { Err(format!("{found}")) }
    })
    .await;
}

async fn taken(server: &Server) -> u64 {
    metric(server, "stockade_embedded_standby_taken_total").await
}

async fn works(server: &Server, id: &str) -> Sandbox {
    let made = server.client().create(&CreateSandbox::new(id)).await.unwrap();
    assert!(made.ready, "{made:?}");
    let sandbox = Sandbox::new(id.to_owned(), made.sandbox_url.into_owned());
    let said = sandbox.sh("hostname; cat /etc/hostname; echo kept > ~/file; id -un").await;
    assert_eq!(said.stdout, format!("{id}\n{id}\ngem\n"), "{said:?}");
    sandbox
}

#[test]
fn a_sandbox_becomes_of_what_was_prepared_and_another_is_prepared() {
    with_each_server(async |server| {
        ready(server, USUAL).await;
        let before = server.standbys();
        assert_eq!((before.len(), server.agents()), (USUAL, 0), "they are no sandboxes");
        works(server, "s1").await;
        assert_eq!(taken(server).await, 1);
        ready(server, USUAL).await;
        let now = server.standbys();
        assert_eq!(before.iter().filter(|name| now.contains(name)).count(), USUAL - 1);
        assert!(
            server.state.join("sandboxes/s1/files").is_dir(),
            "its files are where those of sandboxes are"
        );
        // More at once than wait.
        futures::future::join_all((0..2 * USUAL).map(|at| {
            let server = &*server;
            async move { works(server, &format!("many-{at}")).await }
        }))
        .await;
        assert!(taken(server).await > 1);
    });
}

#[test]
fn none_is_needed() {
    let none = |_: &std::path::Path| vec![("SANDBOX_STANDBY", "0".into())];
    with_server_told(none, async |server| {
        works(server, "s1").await;
        assert_eq!((server.standbys().len(), taken(server).await), (0, 0));
    });
}

#[test]
fn one_that_was_killed_meanwhile_does_not_matter() {
    with_each_server(async |server| {
        ready(server, USUAL).await;
        let waiting = server.waiting();
        assert_eq!(waiting.len(), USUAL, "{waiting:?}");
        waiting.into_iter().for_each(kill);
        let sandbox = works(server, "s1").await;
        assert_eq!(taken(server).await, 0);
        assert_eq!(sandbox.sh("cat ~/file").await.stdout, "kept\n");
        server.client().delete("s1").await.unwrap();
        server.nothing_left().await;
    });
}

#[test]
fn a_server_that_is_killed_takes_them_along() {
    with_each_server(async |server| {
        ready(server, USUAL).await;
        let (names, waiting) = (server.standbys(), server.waiting());
        server.kill().await;
        wait::until("they have ended", SOON, async || {
            let left: Vec<i32> = waiting.iter().copied().filter(|pid| is_waiting(*pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        server.start_again().await;
        assert!(names.iter().all(|name| !server.standbys().contains(name)), "their files are gone");
        assert_eq!(metric(server, "stockade_embedded_swept_total").await, 0, "they are not taken for lost");
        server.nothing_left().await;
        works(server, "s1").await;
    });
}

#[test]
fn a_server_that_ends_leaves_none() {
    with_each_server(async |server| {
        ready(server, USUAL).await;
        let waiting = server.waiting();
        server.end().await;
        assert_eq!((server.standbys().len(), server.leftovers()), (0, Vec::new()));
        // They are killed before the server ends; the kernel may take a moment to end them.
        wait::until("they have ended", SOON, async || {
            let left: Vec<_> = waiting.iter().filter(|pid| is_waiting(**pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        server.start_again().await;
    });
}

#[test]
fn they_take_no_place_from_a_sandbox() {
    with_server_of(3, async |server| {
        let client = server.client();
        ready(server, 2).await;
        works(server, "s1").await;
        ready(server, 1).await;
        works(server, "s2").await;
        ready(server, 0).await;
        works(server, "s3").await;
        let (status, code, detail) = refusal(client.create(&CreateSandbox::new("s4")).await.unwrap_err());
        assert_eq!((status, code.as_str()), (503, "quota_exceeded"), "{detail}");
        for id in ["s1", "s2"] {
            client.delete(id).await.unwrap();
        }
        ready(server, 1).await;
        works(server, "s4").await;
    });
}

#[test]
fn what_differs_from_the_usual_is_made_anew_or_changed() {
    let isolated = |_: &std::path::Path| vec![("SANDBOX_NETWORK", "isolated".into())];
    with_server_told(isolated, async |server| {
        ready(server, USUAL).await;
        let asked = CreateSandbox {
            network: Some(NetworkRequest { mode: "open".to_owned(), allow: Vec::new() }),
            resources: Some(ResourceRequest { memory: at_most("64Mi"), ..ResourceRequest::default() }),
            ..CreateSandbox::new("s1")
        };
        let made = server.client().create(&asked).await.unwrap();
        let sandbox = Sandbox::new("s1".to_owned(), made.sandbox_url.into_owned());
        let said = sandbox.sh("cat /proc/net/dev | grep -c eth0; grep -c nameserver /etc/resolv.conf").await;
        assert_eq!(said.stdout, "1\n1\n", "{said:?}");
        let bomb = sandbox.sh("python3 -c 'b = bytearray(200 << 20)' && echo held").await;
        assert!(!bomb.stdout.contains("held"), "{bomb:?}");
        let isolated = works(server, "s2").await;
        assert_eq!(isolated.sh("grep -c eth0 /proc/net/dev").await.stdout, "0\n");
        assert_eq!(taken(server).await, 2);
    });
}
