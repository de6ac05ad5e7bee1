//! What goes beyond the reference's contract, on a backend that has none of it.

use super::*;

#[tokio::test]
async fn a_backend_that_cannot_pause_says_so() {
    let server = mk_server();
    for (path, what) in [("pause", "pausing a sandbox"), ("resume", "resuming a sandbox")] {
        let answer = server.call("POST", &format!("/api/sandboxes/s1/{path}")).await;
        let detail = json!(format!("{what} is not available on this backend"));
        assert_eq!((answer.status, &answer.json()["detail"]), (501, &detail));
        assert_eq!(answer.json()["code"], "unsupported");
        assert_eq!(server.call("POST", &format!("/api/sandboxes/Bad/{path}")).await.status, 404);
    }
}

#[tokio::test]
async fn what_the_backend_cannot_fulfil_is_refused_by_name() {
    let server = mk_server();
    for (name, value) in
        [("env", json!({"A": "b"})), ("resources", json!({})), ("network", json!({"mode": "open"}))]
    {
        let answer = server.create(json!({"sandbox_id": "s1", name: value}).to_string()).await;
        let error = &answer.json()["detail"][0];
        assert_eq!((answer.status, &error["type"]), (422, &json!("not_supported")), "{name}");
        assert_eq!(error["loc"], json!(["body", name]));
    }
    assert!(server.backend.take_calls().is_empty());
}
