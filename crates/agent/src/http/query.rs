//! Reading query strings, with errors in the envelope.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::reply::ApiError;

/// The arguments behind the `?` of an address.
pub(crate) struct QueryArguments<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryArguments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        let Query(arguments) = read.map_err(|rejection| {
            let message = rejection.body_text();
            let message = message.rsplit_once("query string: ").map_or(&*message, |(_, reason)| reason);
            ApiError::invalid_query(message)
        })?;
        Ok(Self(arguments))
    }
}
