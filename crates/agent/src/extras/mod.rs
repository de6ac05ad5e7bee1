//! The smaller groups of routes: packages and hooks of the sandbox, conversion to Markdown, skills,
//! and the description of the API itself.

pub(crate) mod docs;
pub(crate) mod hooks;
pub(crate) mod markdown;
mod packages;
pub(crate) mod skills;

use axum::Router;

use crate::app::App;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .merge(hooks::router())
        .merge(packages::router())
        .merge(markdown::router())
        .merge(skills::router())
        .merge(docs::router())
}
