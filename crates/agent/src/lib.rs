//! The sandbox agent: an HTTP server that speaks the AIO sandbox API inside every sandbox.
//!
//! ```text
//!   http      the envelope, JSON bodies, the checks before any route
//!   auth      who may call: tokens and tickets
//!   server    connections; health checks have a thread of their own
//!   shell     /v1/shell: bash on real terminals, state kept between commands
//!   bash      /v1/bash: one process a command, over pipes
//!   file      /v1/file: content, search, upload, download
//!   code      Python and JavaScript with state
//!   preview   what listens in the sandbox, seen from outside
//!   mcp       the same calls as tools
//!   extras    hooks, packages, Markdown, skills, the API's description
//!   process   starting, reaping and finding processes
//!   output    bounded memory for what commands print
//! ```
//!
//! Invariants: every buffer and queue has a bound, every wait a deadline or an end it waits for;
//! nothing a command prints can disturb the framing of another; the agent outlives what it runs.

mod app;
mod auth;
mod bash;
mod clean;
mod clock;
mod code;
mod context;
mod defaults;
mod departed;
mod environment;
mod extras;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod git;
mod http;
mod install;
mod kills;
mod lifecycle;
mod mcp;
mod memory;
mod options;
mod output;
mod pool;
mod preview;
mod process;
mod program;
mod routes;
mod seconds;
mod server;
mod shell;
mod text;
mod user_data;

pub use auth::TokenKey;
pub use clean::clean;
pub use extras::hooks::EnvironmentHooks;
pub use http::guard::KnownHosts;
pub use install::{InstallError, install};
pub use lifecycle::run;
pub use options::{Options, OptionsError, Parsed};
pub use program::{main, run_with};
