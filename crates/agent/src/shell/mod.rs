//! `/v1/shell`: sessions of bash on real terminals.

mod driver;
pub(crate) mod registry;
pub(crate) mod routes;
mod session;
mod state;
pub(crate) mod terminal;
pub(crate) mod websocket;

pub(crate) use registry::Shells;
pub(crate) use session::Surroundings;
