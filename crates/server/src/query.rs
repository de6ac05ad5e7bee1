//! The parameters after the `?` as pairs.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;

/// All parameters in their order. Reading them is `stockade_api::query`'s.
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Pairs {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Every text is a list of pairs; there is nothing to refuse.
        Ok(Self(Query::try_from_uri(&parts.uri).map(|Query(pairs)| pairs).unwrap_or_default()))
    }
}
