//! The HTTP server of Stockade: it checks and converts, the backend does the work.
//!
//! A request passes these layers, outermost first: [`telemetry`] (request id, one log line, metrics), a
//! net under panics, [`auth`] (every `/api` path, known or not), [`origin`] (no web page reaches a
//! loopback port), [`limits`] (overload is an answer). Then a handler in [`routes`] reads it into types
//! of the domain, calls the [`stockade_core::Backend`], and writes the answer.

mod auth;
mod body;
mod connections;
mod deadline;
mod error;
mod limits;
mod metrics;
mod openapi;
mod origin;
mod panics;
mod path;
mod places;
mod query;
mod routes;
mod stall;
mod state;
mod telemetry;
#[cfg(test)]
mod test_backend;

pub use auth::Access;
pub use connections::{ConnectionLimits, Drained, serve, serve_with};
pub use openapi::openapi;
pub use origin::{AllowedHost, AllowedHosts, HostNameError};
pub use routes::{Starting, router};
pub use state::{ServerSettings, ServerState};
