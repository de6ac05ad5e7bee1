//! The commands that talk to a server, and to the sandboxes it names.

pub(crate) mod agent;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod logs;
pub(crate) mod quote;
pub(crate) mod sandboxes;
mod server;
pub(crate) mod shell;

pub(crate) use self::server::{Server, ServerOptions};
