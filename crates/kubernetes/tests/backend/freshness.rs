//! Memory is answered from while it is proven, and not a moment longer.

use std::time::Duration;

use stockade_core::{Backend, Status};
use stockade_kubernetes::testing::Fault;

use super::support::{World, id, pass, until, world};

async fn stays_proven_for_a_minute(world: &World, each_second: impl Fn()) {
    for _ in 0..60 {
        each_second();
        pass(1).await;
        let age = world.backend.health().proven_age.unwrap();
        assert!(age < Duration::from_secs(10), "{age:?}");
    }
    // One object each time, never the whole list.
    assert!(world.api.calls().iter().all(|call| call.limit() == Some(1)), "{:?}", world.api.calls());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_where_nothing_happens_stays_proven_without_a_list() {
    let world = world().await;
    stays_proven_for_a_minute(&world, || ()).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_where_nothing_happens_in_a_busy_cluster_stays_proven_without_a_list() {
    let world = world().await;
    stays_proven_for_a_minute(&world, || world.api.turn_the_world()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_watch_is_noticed_and_reads_become_direct() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.make_ready("a");
    pass(1).await;
    world.api.kill_watches_silently();
    for resource in ["pods", "services"] {
        world.api.fail("list", resource, Fault::Hang, 3);
    }
    world.api.take("pods", "sandbox-a");
    world.api.take("services", "sandbox-a-svc");
    pass(11).await;
    assert!(!world.backend.health().ready);
    assert!(world.backend.get(&id("a")).await.unwrap().is_none(), "the truth, not what memory holds");
}

#[tokio::test(start_paused = true)]
async fn a_stale_index_does_not_answer_a_list() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.kill_watches_silently();
    for resource in ["pods", "services"] {
        world.api.fail("list", resource, Fault::status(500, "InternalError", "no leader"), usize::MAX);
    }
    pass(20).await;
    assert_eq!(world.backend.list().await.unwrap_err().code(), "backend_unreachable");
}

#[tokio::test(start_paused = true)]
async fn it_recovers_and_has_missed_nothing() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.create("b").await.unwrap();
    world.api.kill_watches_silently();
    world.api.fail("list", "pods", Fault::Disconnect, 10);
    world.api.take("pods", "sandbox-a");
    world.api.take("services", "sandbox-a-svc");
    world.make_ready("b");
    pass(15).await;
    world.api.heal();
    until(&world, |backend| backend.health().ready).await;
    assert_eq!(world.listed().await, ["b"]);
    assert_eq!(world.backend.get(&id("b")).await.unwrap().unwrap().status, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_is_read_anew() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.api.fail("watch", "pods", Fault::status(410, "Expired", "too old resource version"), 1);
    pass(20).await;
    assert!(world.backend.health().ready);
    assert_eq!(world.listed().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_seen() {
    let world = world().await;
    world.create("a").await.unwrap();
    world.make_ready("a");
    pass(1).await;
    assert!(world.backend.get(&id("a")).await.unwrap().unwrap().ready);
    world.api.take("pods", "sandbox-a");
    world.api.take("services", "sandbox-a-svc");
    pass(1).await;
    assert!(world.listed().await.is_empty());
}
