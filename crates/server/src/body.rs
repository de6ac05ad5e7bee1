//! The body of a JSON request: of the right type, of bounded size, in bounded time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time;

use crate::error::ApiError;

/// The largest body in bytes. A create request with everything in it has some kilobytes.
const MAX_BODY: usize = 1024 * 1024;
/// How long a caller may take to send it.
const MAX_TIME: Duration = Duration::from_secs(10);

/// The body of a JSON request, not read yet.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Bytes);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > MAX_BODY as u64)
        {
            return Err(too_large());
        }
        let reading = Limited::new(request.into_body(), MAX_BODY).collect();
        match time::timeout(MAX_TIME, reading).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(ApiError::own(
                StatusCode::BAD_REQUEST,
                "body_incomplete",
                "the body ended before it was complete",
            )),
            Err(_) => Err(ApiError::own(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!("the body did not arrive within {} s", MAX_TIME.as_secs()),
            )),
        }
    }
}

fn too_large() -> ApiError {
    ApiError::own(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than {MAX_BODY} bytes"),
    )
}

/// A web page can send other types, or none, anywhere without asking first; JSON it cannot.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or(""));
    let essence = given.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(ApiError::own(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
        "send the body as JSON, with the header `Content-Type: application/json`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: Option<&str>, expect: bool) {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        assert_eq!(check_type(&headers).is_ok(), expect, "{content_type:?}");
    }

    #[test]
    fn only_json_is_taken_for_json() {
        check(Some("application/json"), true);
        check(Some("Application/JSON; charset=utf-8"), true);
        check(Some("application/merge-patch+json"), true);
        check(None, false);
        check(Some(""), false);
        check(Some("text/plain"), false);
        check(Some("application/x-www-form-urlencoded"), false);
        check(Some("text/plain; application/json"), false);
        check(Some("application/jsonx"), false);
    }
}
