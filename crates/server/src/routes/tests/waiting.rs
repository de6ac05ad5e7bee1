//! The answer of a create waits for the sandbox, by the backend's own choice.

use super::*;

/// A server whose sandboxes answer when a permit says so.
fn mk_slow_server() -> Arc<Server> {
    let server = Arc::new(mk_server());
    server.backend.answers.forget_permits(usize::MAX);
    server
}

fn creating(server: &Arc<Server>, path: &'static str, number: usize) -> tokio::task::JoinHandle<Answer> {
    let server = Arc::clone(server);
    tokio::spawn(async move { server.create_at(path, format!(r#"{{"sandbox_id":"s{number}"}}"#)).await })
}

#[tokio::test(start_paused = true)]
async fn a_create_that_waits_for_its_sandbox_holds_no_turn() {
    let server = mk_slow_server();
    // As many as may run at once, and some more.
    let creates: Vec<_> = (0..600).map(|number| creating(&server, "/api/sandboxes", number)).collect();
    for _ in 0..600 {
        server.backend.begun.acquire().await.unwrap().forget();
    }
    assert!(creates.iter().all(|create| !create.is_finished()));
    server.backend.answers.add_permits(600);
    for create in creates {
        assert_eq!(create.await.unwrap().status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_says_about_waiting_wins() {
    let server = mk_slow_server();
    let create = creating(&server, "/api/sandboxes?wait=ready&timeout=3", 1);
    let answer = create.await.unwrap();
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &json!(false)));
    server.backend.change("s1", |sandbox| sandbox.ready = true);
    let again = creating(&server, "/api/sandboxes?wait=ready", 1).await.unwrap();
    assert_eq!(again.json()["ready"], true);
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_is_answered_at_once() {
    let server = mk_slow_server();
    server.backend.fail(|| BackendError::QuotaExceeded { message: "full".into() });
    assert_eq!(creating(&server, "/api/sandboxes", 1).await.unwrap().status, 503);
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_what_the_sandbox_is_after_the_wait() {
    let server = mk_slow_server();
    let create = creating(&server, "/api/sandboxes", 1);
    server.backend.begun.acquire().await.unwrap().forget();
    while server.backend.waiting.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    server.backend.change("s1", |sandbox| sandbox.ready = true);
    server.backend.answers.add_permits(1);
    assert_eq!(create.await.unwrap().json()["ready"], true);
}
