//! What several tests say about sandboxes.

use stockade_api::CreateSandbox;
use stockade_api::client::ClientError;
use stockade_e2e::server::Server;

/// A create request of a user and a thread.
pub(crate) fn mk_request(id: &str, user: &str, thread: &str) -> CreateSandbox {
    CreateSandbox {
        user_id: Some(user.to_owned()),
        thread_id: Some(thread.to_owned()),
        ..CreateSandbox::new(id)
    }
}

/// The status and the sentence of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Refused { status, detail, .. }) => (status, detail),
        Err(ClientError::Unauthorized) => (401, String::new()),
        Err(ClientError::Invalid { fields }) => (422, format!("{fields:?}")),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The ids in the list, in its order.
pub(crate) async fn listed(server: &Server) -> Vec<String> {
    let list = server.client().list().await.expect("a list");
    assert_eq!(list.count, list.sandboxes.len(), "count and sandboxes differ");
    list.sandboxes.into_iter().map(|sandbox| sandbox.sandbox_id.into_owned()).collect()
}
