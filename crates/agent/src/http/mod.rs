//! What every route shares: the envelope, JSON bodies, and the checks made before a route is reached.

pub(crate) mod body;
pub(crate) mod events;
mod form;
pub(crate) mod guard;
pub(crate) mod leftover;
mod query;
pub(crate) mod reading;
pub(crate) mod reply;

pub(crate) use body::{JsonBody, RawJson};
pub(crate) use form::form;
pub(crate) use query::QueryOf;
pub(crate) use reply::{ApiError, Success, ok, ok_with_hint};
