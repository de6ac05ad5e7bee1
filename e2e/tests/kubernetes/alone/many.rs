//! Many sandboxes at once.

use std::time::Duration;

use futures::future::join_all;
use stockade_api::CreateSandbox;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

use crate::support::listed;

#[test]
fn thirty_sandboxes_all_answer_and_leave_nothing() {
    scenario(async |world| {
        let server = world.server().await;
        let client = server.client();
        let ids: Vec<String> = (0..30).map(|number| format!("many-{number:02}")).collect();
        let creates =
            ids.iter().map(async |id| client.create(&CreateSandbox::new(id)).await.expect("a sandbox"));
        let sandboxes = join_all(creates).await;
        assert_eq!(listed(&server).await, ids);
        join_all(sandboxes.iter().map(|sandbox| world.enter(sandbox))).await;
        wait::until("all of them are ready", Duration::from_secs(60), async || {
            let list = client.list().await.unwrap().sandboxes;
            let ready = list.iter().filter(|sandbox| sandbox.ready).count();
            if ready == 30 { Ok(()) } else { Err(format!("{ready} of 30")) }
        })
        .await;
        join_all(ids.iter().map(async |id| client.delete(id).await.expect("a delete"))).await;
        assert_eq!(listed(&server).await, [""; 0]);
        wait::until("nothing is left", Duration::from_secs(90), async || world.cluster.is_empty().await)
            .await;
    });
}
