//! The one place where tests wait for what has no event they could see: another process, a cluster.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks. Short against everything that is waited for here, long against what a look costs.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` answers `Ok`, and returns that.
///
/// # Panics
/// When the deadline has passed; with what was waited for and what was seen last.
pub async fn until<T, E: Display>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    every(INTERVAL, what, deadline, look).await
}

/// The same with looks so often that their interval does not show in what a benchmark measures.
///
/// # Panics
/// As [`until`].
pub async fn often<T, E: Display>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    every(Duration::from_millis(2), what, deadline, look).await
}

async fn every<T, E: Display>(
    interval: Duration,
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(missing) if started.elapsed() >= deadline => {
                panic!("{what}: not within {} s; last seen: {missing}", deadline.as_secs())
            }
            Err(_) => tokio::time::sleep(interval).await,
        }
    }
}

/// Looks for the whole of `period` and wants every look to be `Ok`: for what must not happen.
///
/// # Panics
/// At the first look that is not.
pub async fn throughout<E: Display>(
    what: &str,
    period: Duration,
    mut look: impl AsyncFnMut() -> Result<(), E>,
) {
    let started = Instant::now();
    while started.elapsed() < period {
        if let Err(seen) = look().await {
            panic!("{what}: broken after {} ms: {seen}", started.elapsed().as_millis());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
