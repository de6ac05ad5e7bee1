//! The backend against a scripted API server: every path and every error, on a clock of the test's own.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test crate has no outside, and fails by panics")]

mod creating;
mod deleting;
mod errors;
mod freshness;
mod support;
mod waiting;
