//! What DeerFlow's provider waits for: it asks for a sandbox, then polls the URL, and sleeps for a second after
//! each poll that failed.

use std::time::{Duration, Instant};

use stockade_e2e::testbox::Testbox;
use stockade_e2e::wait;

use crate::Arguments;
use crate::bar::bar;
use crate::rows::{Row, Rows};
use crate::subject::Subject;

/// Each takes a second or three, and as long again to end.
const TIMES: usize = 15;
/// Between two polls of DeerFlow's client.
const POLL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);
/// Of the design, for URLs that lead straight to the Pod.
const BUDGET_MS: f64 = 1300.0;

pub(crate) async fn measure(arguments: &Arguments, rows: &mut Rows) {
    let mut subjects = vec![("", Subject::find(arguments, None).await)];
    if arguments.url.is_none() {
        subjects.push((", SANDBOX_CREATE_WAIT=0", Subject::find(arguments, Some("0")).await));
    }
    let bar = bar("acquired", subjects.len() * TIMES);
    let mut times = vec![Vec::new(); subjects.len()];
    // By turns, so that both meet the same machine.
    for number in 0..TIMES {
        for ((_, subject), times) in subjects.iter().zip(&mut times) {
            times.push(acquire(subject, &format!("acquire-{number}")).await);
            bar.inc(1);
        }
    }
    for ((how, subject), times) in subjects.into_iter().zip(times) {
        let what = format!("acquire by DeerFlow's own loop{how}");
        // The reference's own, measured on a machine of this kind.
        rows.add(&Row::times(&what, &times).budget(BUDGET_MS).reference(7000.0));
        subject.end().await;
    }
}

async fn acquire(subject: &Subject, id: &str) -> Duration {
    let caller = subject.caller();
    let started = Instant::now();
    let testbox = Testbox::at(&caller.create(id).await);
    while testbox.host_name().await.is_err() {
        assert!(started.elapsed() < LIMIT, "no answer from {id}");
        tokio::time::sleep(POLL).await;
    }
    let took = started.elapsed();
    caller.delete(id).await;
    wait::until("it is gone", LIMIT, async || subject.view.is_gone(id).await).await;
    took
}
