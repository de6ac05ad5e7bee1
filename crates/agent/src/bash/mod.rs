//! `/v1/bash`: one process per command, over pipes, with environment and offsets.

mod backpressure;
mod command;
mod follow;
mod once;
mod registry;
pub(crate) mod routes;
mod start;

pub(crate) use once::run_once;
pub(crate) use registry::{Bashes, SessionInfo};
