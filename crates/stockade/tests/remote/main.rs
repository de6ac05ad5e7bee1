//! The commands that talk to a server, from outside: the built binary against a real server whose sandboxes are
//! real agents, as plain processes of this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panics")]

mod cut;
mod exec;
mod logs;
mod sandboxes;
mod shell;
mod world;
