//! The commands that talk to a server, and to the sandboxes it names.

pub(crate) mod agent;
pub(crate) mod create;
pub(crate) mod cut;
pub(crate) mod exec;
pub(crate) mod logs;
pub(crate) mod quote;
pub(crate) mod sandboxes;
mod server;
pub(crate) mod shell;
mod start;

pub(crate) use self::server::{Server, ServerOptions};
pub(crate) use self::start::find;
