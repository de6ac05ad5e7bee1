//! Harness of the black-box tests: a built server as a child process, a real cluster, and eyes of its own
//! for what is true there.
//!
//! A test is a [`world::scenario`]: it gets a [`world::World`] with a namespace, directories and servers
//! of its own, and at the end the world looks at what every test has to leave behind: servers that end
//! in order, logs without a panic and without a secret, a namespace on its way out.
//!
//! Where the cluster and the binary are, the environment says; see [`run::Run`]. `cargo xtask test` sets it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "test code: a harness that cannot do its part fails the test, with a message"
)]

pub mod cluster;
pub mod dirs;
pub mod faults;
pub mod http;
pub mod identity;
pub mod refusals;
pub mod run;
pub mod server;
pub mod testbox;
pub mod wait;
pub mod world;
