//! `/v1/file`: reading, writing, searching and moving files.

pub(crate) mod content;
pub(crate) mod download;
pub(crate) mod editor;
pub(crate) mod failure;
pub(crate) mod find;
pub(crate) mod globs;
pub(crate) mod grep;
mod limits;
pub(crate) mod list;
mod paths;
pub(crate) mod routes;
pub(crate) mod upload;
mod walk;
pub(crate) mod watch;

pub(crate) use failure::Failure;
pub(crate) use paths::Target;
#[cfg(feature = "fuzzing")]
pub(crate) use upload::destination;
