//! `/v1/file`: reading, writing, searching and moving files.

mod append;
mod attributes;
pub(crate) mod beside;
pub(crate) mod content;
mod document;
pub(crate) mod download;
pub(crate) mod editor;
pub(crate) mod failure;
pub(crate) mod find;
pub(crate) mod given;
pub(crate) mod globs;
pub(crate) mod grep;
mod incoming;
mod limits;
pub(crate) mod list;
pub(crate) mod names;
mod owner;
mod paths;
mod place;
pub(crate) mod replace;
pub(crate) mod routes;
mod store;
pub(crate) mod upload;
mod walk;
pub(crate) mod watch;

pub(crate) use failure::Failure;
pub(crate) use paths::Target;
#[cfg(feature = "fuzzing")]
pub(crate) use upload::destination;
