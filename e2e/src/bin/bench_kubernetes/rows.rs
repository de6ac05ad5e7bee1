//! Figures, and how they are told.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

/// One line of the result.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Of all figures of this row.
    pub(crate) unit: &'static str,
    /// How often.
    pub(crate) count: usize,
    /// The median, or the only figure.
    pub(crate) ours: f64,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// What a bare client needs for the same.
    pub(crate) floor: Option<f64>,
    /// The limit of the design.
    pub(crate) budget: Option<f64>,
    /// The reference provisioner's, measured on a machine of this kind.
    pub(crate) reference: Option<f64>,
}

impl Row {
    /// Times of one thing, in milliseconds.
    pub(crate) fn times(what: &str, times: &[Duration]) -> Self {
        let times = Times::of(times);
        Self {
            what: what.to_owned(),
            unit: "ms",
            count: times.0.len(),
            ours: times.quantile(0.5),
            p95: Some(times.quantile(0.95)),
            p99: Some(times.quantile(0.99)),
            ..Self::default()
        }
    }

    pub(crate) fn budget(self, budget: f64) -> Self {
        Self { budget: Some(budget), ..self }
    }

    pub(crate) fn floor(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }

    pub(crate) fn reference(self, reference: f64) -> Self {
        Self { reference: Some(reference), ..self }
    }
}

/// Sorted times in milliseconds.
#[derive(Debug)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn of(times: &[Duration]) -> Self {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The smallest time that this part of all are not above.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// Where rows go: to standard output, as they come.
#[derive(Debug, Default)]
pub(crate) struct Rows;

impl Rows {
    pub(crate) fn add(&mut self, row: &Row) {
        let line = serde_json::to_string(row).expect("JSON");
        writeln!(std::io::stdout(), "{line}").expect("somebody reads");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let times = Times::of(&times);
        assert!((times.quantile(0.5) - 50.0).abs() < 1e-9);
        assert!((times.quantile(0.99) - 99.0).abs() < 1e-9);
        assert!(Times::of(&[]).quantile(0.5).is_nan());
    }
}
