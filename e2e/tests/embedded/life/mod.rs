//! The life of sandboxes, from outside: what callers are promised, and what a server that is killed leaves.

mod asked;
mod cli;
mod contract;
mod crashes;
mod cut;
mod evicted;
mod many;
mod server;
mod standby;
mod usual;
