//! Running code: `/v1/code`, `/v1/jupyter` and `/v1/nodejs`, all on the same interpreters.

mod ended;
mod interpreter;
pub(crate) mod jupyter;
pub(crate) mod nodejs;
mod registry;
mod stray;
pub(crate) mod unified;

pub(crate) use registry::Codes;

use axum::Router;

use crate::app::App;

pub(crate) fn router() -> Router<App> {
    Router::new().merge(unified::router()).merge(jupyter::router()).merge(nodejs::router())
}
