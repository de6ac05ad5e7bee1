//! The embedded backend on this machine: `stockade up`, real sandboxes, attacked from inside.
//!
//! As root every test runs twice, once with the server as an ordinary user. They run one after the other: several fill
//! the machine on purpose.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test code; clippy's own exception covers only functions with #[test]"
)]

mod isolation;
mod life;
mod sandbox;
mod sdk;
mod world;
