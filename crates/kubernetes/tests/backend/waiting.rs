//! The answer of a create waits for the sandbox: real connections, on a real clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use stockade_core::{Backend, Sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::support::{World, id, in_seconds, until, world_waiting};

/// As long as a create may wait here: longer than any test.
const PATIENCE: Duration = Duration::from_secs(120);
/// What has to happen happens much sooner.
const SOON: Duration = Duration::from_secs(60);

/// What listens at the URL of a sandbox: 503 until it is told to be well.
#[derive(Clone)]
struct Listener {
    port: u16,
    asked: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    is_well: Arc<AtomicBool>,
}

impl Listener {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = Self {
            port: socket.local_addr().unwrap().port(),
            asked: Arc::default(),
            most_at_once: Arc::default(),
            is_well: Arc::default(),
        };
        let (this, open) = (listener.clone(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                this.asked.fetch_add(1, Ordering::Relaxed);
                this.most_at_once.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let (is_well, open) = (this.is_well.load(Ordering::Relaxed), Arc::clone(&open));
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let status = if is_well { "200 OK" } else { "503 Service Unavailable" };
                    let answer =
                        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                    // Until the other side hangs up too.
                    let _ = stream.read(&mut request).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        listener
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn asked_more_than(&self, times: usize) {
        let end = Instant::now() + SOON;
        while self.asked() <= times {
            assert!(Instant::now() < end, "asked {} times", self.asked());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A sandbox whose URL leads to this listener, and whose Pod has an address.
async fn sandbox_at(world: &World, name: &str, listener: &Listener) -> Arc<Sandbox> {
    world.create(name).await.unwrap();
    let port = listener.port;
    world.api.edit("services", &format!("sandbox-{name}-svc"), |service| {
        service["spec"]["ports"][0]["nodePort"] = json!(port);
    });
    world.api.edit("pods", &format!("sandbox-{name}"), |pod| pod["status"]["podIP"] = json!("10.0.0.7"));
    let url = format!("http://127.0.0.1:{port}");
    let end = Instant::now() + SOON;
    loop {
        let sandbox = world.backend.get(&id(name)).await.unwrap().unwrap();
        if sandbox.url == url {
            return sandbox;
        }
        assert!(Instant::now() < end, "{sandbox:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A backend whose creates wait, made on a clock that is stopped, then on the real one.
async fn world() -> World {
    let world = world_waiting(PATIENCE);
    until(&world, |backend| backend.health().ready).await;
    tokio::time::resume();
    world
}

fn waiting(world: &World, made: &Arc<Sandbox>) -> JoinHandle<Arc<Sandbox>> {
    let (backend, made) = (Arc::clone(&world.backend), Arc::clone(made));
    tokio::spawn(async move { backend.wait_answering(made, in_seconds(300)).await })
}

async fn soon<T>(handle: JoinHandle<T>) -> T {
    timeout(SOON, handle).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_answer_comes_when_the_url_answers_as_the_sandbox_is_then() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let waits = waiting(&world, &made);
    listener.asked_more_than(2).await;
    assert!(!waits.is_finished());
    world.api.edit("pods", "sandbox-a", |pod| pod["status"]["phase"] = json!("Running"));
    listener.is_well.store(true, Ordering::Relaxed);
    let answered = soon(waits).await;
    assert_eq!(answered.status.as_str(), "Running");
    assert!(!answered.ready, "nobody waited for the kubelet");
}

#[tokio::test(start_paused = true)]
async fn creates_of_one_sandbox_share_one_wait_and_each_may_leave_it() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let mut waits: Vec<_> = (0..20).map(|_| waiting(&world, &made)).collect();
    listener.asked_more_than(2).await;
    // The one that came first is not the one that the others depend on.
    waits.remove(0).abort();
    let asked = listener.asked();
    listener.asked_more_than(asked + 2).await;
    listener.is_well.store(true, Ordering::Relaxed);
    for wait in waits {
        soon(wait).await;
    }
    assert_eq!(listener.most_at_once.load(Ordering::Relaxed), 1, "twenty asked at once");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_last_caller() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let wait = waiting(&world, &made);
    listener.asked_more_than(0).await;
    wait.abort();
    assert!(wait.await.unwrap_err().is_cancelled());
    let asked = listener.asked();
    // Eight times as long as between two attempts.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(listener.asked() <= asked + 1, "nobody waits and it is asked on");
}

#[tokio::test(start_paused = true)]
async fn out_of_reach_the_pod_decides_and_later_creates_do_not_ask() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let wait = waiting(&world, &made);
    listener.asked_more_than(0).await;
    world.make_ready("a");
    assert!(soon(wait).await.ready);

    let other = Listener::start().await;
    let made = sandbox_at(&world, "b", &other).await;
    let wait = waiting(&world, &made);
    tokio::task::yield_now().await;
    assert!(!wait.is_finished());
    world.make_ready("b");
    assert!(soon(wait).await.ready);
    assert_eq!(other.asked(), 0, "the memo says that URLs are out of reach");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_pod_has_an_address() {
    let world = world().await;
    let listener = Listener::start().await;
    listener.is_well.store(true, Ordering::Relaxed);
    let made = sandbox_at(&world, "a", &listener).await;
    world.api.edit("pods", "sandbox-a", |pod| pod["status"] = json!({ "phase": "Pending" }));
    until(&world, |_| true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let wait = waiting(&world, &made);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(listener.asked(), 0);
    world.api.edit("pods", "sandbox-a", |pod| pod["status"]["podIP"] = json!("10.0.0.7"));
    soon(wait).await;
}

#[tokio::test(start_paused = true)]
async fn what_will_not_answer_is_not_waited_for() {
    let world = world().await;
    let listener = Listener::start().await;
    for (name, status) in [
        (
            "pull",
            json!({ "phase": "Pending", "containerStatuses": [{
                "name": "sandbox", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } },
            }]}),
        ),
        (
            "full",
            json!({ "phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room",
            }]}),
        ),
        ("evicted", json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" })),
    ] {
        let made = sandbox_at(&world, name, &listener).await;
        let wait = waiting(&world, &made);
        world.api.edit("pods", &format!("sandbox-{name}"), |pod| pod["status"] = status);
        let answered = soon(wait).await;
        assert!(answered.reason.is_some(), "{name}: {answered:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_deleted_meanwhile_is_not_waited_for() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let wait = waiting(&world, &made);
    listener.asked_more_than(0).await;
    world.backend.delete(&id("a")).await.unwrap();
    assert_eq!(soon(wait).await, made);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_no_longer_than_its_caller_has_and_than_the_setting_says() {
    let world = world().await;
    let listener = Listener::start().await;
    let made = sandbox_at(&world, "a", &listener).await;
    let started = Instant::now();
    assert_eq!(world.backend.wait_answering(Arc::clone(&made), in_seconds(1)).await.url, made.url);
    assert!((Duration::from_secs(1)..SOON).contains(&started.elapsed()));

    let world = world_waiting(Duration::ZERO);
    let made = world.create("b").await.unwrap();
    let answer = world.backend.wait_answering(Arc::clone(&made), in_seconds(300));
    assert!(futures::poll!(std::pin::pin!(answer)).is_ready(), "0 waits");
}
