//! What a caller hears whose sandbox goes away while it waits for an answer.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_api::CreateSandbox;
use stockade_e2e::wait;

use super::server::{Server, with_each_server, with_server};
use super::usual::kill;
use crate::sandbox::Sandbox;

const SOON: Duration = Duration::from_secs(30);

/// A sandbox with a call under way; the call's answer when `end` is done.
async fn cut(server: &Server, id: &str, end: impl AsyncFnOnce()) -> Value {
    let made = server.client().create(&CreateSandbox::new(id)).await.unwrap();
    let sandbox = Sandbox::new(id.to_owned(), made.sandbox_url.into_owned());
    let (call, began) = (Sandbox::new(id.to_owned(), sandbox.url.clone()), "/mnt/user-data/began");
    let under_way = tokio::spawn(async move {
        let body = json!({ "command": format!("touch {began}; sleep 1000"), "hard_timeout": 60 });
        call.post("/v1/bash/exec", &body).await
    });
    wait::until("the call is under way", SOON, async || {
        let read = sandbox.post("/v1/file/read", &json!({ "file": began })).await?;
        if read["success"] == true { Ok(()) } else { Err(read.to_string()) }
    })
    .await;
    end().await;
    under_way.await.unwrap().unwrap()
}

#[test]
fn one_that_is_deleted_says_so_in_the_answer_that_is_cut() {
    with_each_server(async |server| {
        let client = server.client();
        let told = cut(server, "s1", async || drop(client.delete("s1").await.unwrap())).await;
        assert_eq!((&told["success"], &told["reason"]), (&false.into(), &"Deleted".into()), "{told}");
        server.nothing_left().await;
    });
}

#[test]
fn one_whose_main_process_ends_says_so_in_the_answer_that_is_cut() {
    with_server(async |server| {
        let told = cut(server, "s1", async || kill(server.main_process("s1"))).await;
        assert_eq!(told["reason"], "Restarting", "{told}");
        assert!(told["message"].as_str().unwrap().contains("signal 9"), "{told}");
    });
}
