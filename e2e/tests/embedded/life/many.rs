//! As many sandboxes as a machine is expected to hold.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use stockade_api::CreateSandbox;
use stockade_e2e::http;

use super::server::with_server_of;

/// How many there are at once.
const MANY: u16 = 500;
/// How many callers ask at once.
const CALLERS: usize = 8;

#[test]
fn five_hundred_sandboxes_all_answer_and_leave_nothing() {
    with_server_of(MANY, async |server| {
        let client = &server.client();
        let numbers = || stream::iter(0..MANY).map(|number| format!("s{number}"));
        let made = numbers().map(async |id| client.create(&CreateSandbox::new(id)).await);
        let made: Vec<_> = made.buffer_unordered(CALLERS).try_collect().await.unwrap();
        assert!(made.iter().all(|sandbox| sandbox.ready), "{made:?}");
        let one_more = client.create(&CreateSandbox::new("one-more")).await.unwrap_err().to_string();
        // As many ports as sandboxes: the range is what there is no more of.
        assert!(one_more.contains("500 sandboxes") && one_more.contains("SANDBOX_PORT_RANGE"), "{one_more}");
        assert_eq!(client.list().await.unwrap().count, usize::from(MANY));
        let answers = stream::iter(&made).map(|sandbox| {
            let url = format!("{}/v1/sandbox", sandbox.sandbox_url);
            async move { http::get(&url).await.map(|answer| answer.status) }
        });
        let answers: Vec<u16> = answers.buffer_unordered(CALLERS).try_collect().await.unwrap();
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
        let gone = numbers().map(async |id| client.delete(&id).await);
        gone.buffer_unordered(CALLERS).try_collect::<Vec<_>>().await.unwrap();
        server.nothing_left().await;
    });
}
