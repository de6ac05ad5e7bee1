//! The server on a real cluster. `cargo xtask test` runs it.
//!
//! Tests in [`together`] run at the same time, those in [`alone`] one after the other, because they load
//! the whole machine or break the cluster for everybody. Those in [`alone::own_cluster`] break it on
//! purpose and are run on the project's own cluster only. Those in [`real`] have real sandboxes in place of
//! the test sandbox, and a stage of their own.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test code; clippy's own exception covers only functions with #[test]"
)]

mod alone;
mod real;
mod support;
mod together;
