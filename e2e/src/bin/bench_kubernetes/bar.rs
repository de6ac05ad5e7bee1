//! A bar while something is repeated.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error while something is repeated; nothing when that is no terminal.
pub(crate) fn bar(what: &str, count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:30} {wide_bar} {pos}/{len}").expect("a template");
    let bar = ProgressBar::new(u64::try_from(count).unwrap_or_default()).with_style(style);
    bar.with_message(what.to_owned())
}

/// Times of one call after the other.
pub(crate) async fn repeat(what: &str, count: usize, mut call: impl AsyncFnMut(usize)) -> Vec<Duration> {
    let bar = bar(what, count);
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        call(number).await;
        times.push(started.elapsed());
        bar.inc(1);
    }
    times
}
