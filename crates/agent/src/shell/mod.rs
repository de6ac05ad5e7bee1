//! `/v1/shell`: sessions of bash on real terminals.

mod driver;
mod ending;
mod follow;
mod input;
mod leftover;
pub(crate) mod page;
pub(crate) mod registry;
pub(crate) mod routes;
mod session;
pub(crate) mod sessions;
mod state;
mod surroundings;
pub(crate) mod terminal;
pub(crate) mod websocket;

pub(crate) use registry::Shells;
pub(crate) use surroundings::Surroundings;
