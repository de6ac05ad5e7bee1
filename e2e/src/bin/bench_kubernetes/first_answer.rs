//! From the first write to the first answer of the sandbox, beside a bare Pod with a NodePort Service.

use std::time::{Duration, Instant};

use stockade_e2e::cluster::View;
use stockade_e2e::testbox::Testbox;
use stockade_e2e::wait;

use crate::bar::bar;
use crate::objects::{Objects, remove};
use crate::rows::{Row, Rows, Times};
use crate::subject::Subject;

/// Each takes a second or two, and as long again to end.
const TIMES: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Both ways to one sandbox.
#[derive(Debug, Default)]
struct Ways {
    node_port: Vec<Duration>,
    pod_address: Vec<Duration>,
}

pub(crate) async fn measure(subject: &Subject, rows: &mut Rows) {
    let caller = subject.caller();
    // The first one also makes what later ones find: directories, the namespace's service account.
    caller.create("pattern").await;
    let objects = Objects::of(&subject.view, "pattern").await;
    caller.delete("pattern").await;
    let bare_view = subject.floor_view().await;
    let (mut ours, mut bare) = (Ways::default(), Ways::default());
    let bar = bar("first answers", 2 * TIMES);
    // By turns, so that both meet the same machine.
    for number in 0..TIMES {
        let id = format!("first-{number}");
        let started = Instant::now();
        let url = caller.create(&id).await;
        both_ways(&subject.view, &id, &url, started, &mut ours).await;
        caller.delete(&id).await;
        wait_gone(&subject.view, &id).await;
        bar.inc(1);

        let started = Instant::now();
        objects.write_pod(&bare_view.pods(), &id).await;
        let service = objects.write_service(&bare_view.services(), &id).await;
        let port = service.spec.and_then(|spec| spec.ports?.first()?.node_port).expect("a NodePort");
        // The same host as in the provisioner's URL.
        let host = url.rsplit_once(':').map_or(url.as_str(), |(host, _)| host);
        both_ways(&bare_view, &id, &format!("{host}:{port}"), started, &mut bare).await;
        remove(&bare_view, &id).await;
        wait_gone(&bare_view, &id).await;
        bar.inc(1);
    }
    let _ = bare_view.remove_namespace().await;
    for (what, ours, bare, reference) in [
        ("create to first 200, NodePort", &ours.node_port, &bare.node_port, Some(7000.0)),
        ("create to first 200, Pod address", &ours.pod_address, &bare.pod_address, None),
    ] {
        let floor = Times::of(bare).quantile(0.5);
        rows.add(&Row { reference, ..Row::times(what, ours).floor(floor).budget(floor * 1.1) });
    }
}

async fn both_ways(view: &View, id: &str, url: &str, started: Instant, ways: &mut Ways) {
    let by_port = async {
        first_answer(url).await;
        started.elapsed()
    };
    let by_address = async {
        let address = wait::until("the Pod has an address", LIMIT, async || {
            let status = view.pod(id).await.and_then(|pod| pod.status);
            status.and_then(|status| status.pod_ip).ok_or("none")
        })
        .await;
        first_answer(&format!("http://{address}:8080")).await;
        started.elapsed()
    };
    let (by_port, by_address) = tokio::join!(by_port, by_address);
    ways.node_port.push(by_port);
    ways.pod_address.push(by_address);
}

async fn first_answer(url: &str) {
    let testbox = Testbox::at(url);
    wait::often("the first answer", LIMIT, async || testbox.host_name().await).await;
}

async fn wait_gone(view: &View, id: &str) {
    wait::until("it is gone", LIMIT, async || view.is_gone(id).await).await;
}
