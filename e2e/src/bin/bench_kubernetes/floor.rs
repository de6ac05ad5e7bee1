//! What the cluster takes from a client that does nothing but write the two objects.

use std::time::{Duration, Instant};

use futures::future::join_all;
use stockade_e2e::cluster::View;

use crate::bar::bar;
use crate::objects::{Objects, remove};

/// Times of the two writes, one after the other.
pub(crate) async fn two_writes(view: &View, objects: &Objects, count: usize) -> Vec<Duration> {
    let (pods, services) = (view.pods(), view.services());
    let bar = bar("floor: two writes", count);
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let id = format!("floor-{number}");
        let started = Instant::now();
        objects.write_pod(&pods, &id).await;
        objects.write_service(&services, &id).await;
        times.push(started.elapsed());
        bar.inc(1);
    }
    for number in 0..count {
        remove(view, &format!("floor-{number}")).await;
    }
    times
}

/// Writes so many pairs with so many workers; pairs a second.
pub(crate) async fn pairs_per_second(
    view: &View,
    objects: &Objects,
    name: &str,
    count: usize,
    workers: usize,
) -> f64 {
    let bar = bar("bare pairs", count);
    let started = Instant::now();
    join_all((0..workers).map(|worker| {
        let (pods, services, bar) = (view.pods(), view.services(), bar.clone());
        async move {
            for number in (worker..count).step_by(workers) {
                let id = format!("{name}-{number:05}");
                objects.write_pod(&pods, &id).await;
                objects.write_service(&services, &id).await;
                bar.inc(1);
            }
        }
    }))
    .await;
    rate(count, started.elapsed())
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
