//! Reading multipart forms.

use axum::extract::Request;
use http::{StatusCode, header};
use multer::{Constraints, Multipart, SizeLimit};

use super::reply::ApiError;

/// The form that a request sends, with its sizes bounded.
pub(crate) fn form(request: Request, limits: SizeLimit) -> Result<Multipart<'static>, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or("")).map_err(|_| {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this route takes multipart/form-data with a boundary",
        )
    })?;
    let constraints = Constraints::new().size_limit(limits);
    Ok(Multipart::with_constraints(request.into_body().into_data_stream(), boundary, constraints))
}
