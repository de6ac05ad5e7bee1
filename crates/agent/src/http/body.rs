//! Reading JSON request bodies: content type, size, deadline, and errors in the shape the SDK expects.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reply::ApiError;
use crate::app::App;

/// How long a client may take to send a JSON body.
const BODY_DEADLINE: Duration = Duration::from_secs(120);
const MIB: usize = 1024 * 1024;

/// A JSON body of at most `LIMIT_MIB` MiB: an object, and with `LIST` a list too. An empty body is `{}`.
pub(crate) struct JsonBody<T, const LIMIT_MIB: usize = 8, const LIST: bool = false>(pub(crate) T);

impl<T: DeserializeOwned, const LIMIT_MIB: usize, const LIST: bool> FromRequest<App>
    for JsonBody<T, LIMIT_MIB, LIST>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let RawJson(bytes) = RawJson::<LIMIT_MIB>::from_request(request, app).await?;
        if !LIST && is_list(&bytes) {
            return Err(not_an_object());
        }
        parse(&bytes).map(JsonBody)
    }
}

fn is_list(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"[")
}

/// A list would be taken for the fields of a structure in their order.
fn not_an_object() -> ApiError {
    ApiError::unprocessable("", "body is a list, this route takes an object", "type_error")
}

/// The bytes of a JSON body of at most `LIMIT_MIB` MiB, for a route that takes its values out of them instead of copying.
pub(crate) struct RawJson<const LIMIT_MIB: usize>(Vec<u8>);

impl<const LIMIT_MIB: usize> RawJson<LIMIT_MIB> {
    /// The object in it, which may borrow from it.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        if is_list(&self.0) { Err(not_an_object()) } else { parse(&self.0) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<const LIMIT_MIB: usize> FromRequest<App> for RawJson<LIMIT_MIB> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let announced = announced_length(&parts.headers)?;
        let limit = LIMIT_MIB * MIB;
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        // Space for the body is taken before it is read, so that many large requests wait instead of adding up.
        let mebibytes = announced.map_or(LIMIT_MIB, |n| usize::try_from(n).unwrap_or(limit).div_ceil(MIB));
        let permits = u32::try_from(mebibytes.max(1)).unwrap_or(u32::MAX);
        let space = tokio::time::timeout(BODY_DEADLINE, app.limits().body_mebibytes.acquire_many(permits));
        let _space = match space.await {
            Ok(Ok(permit)) => permit,
            _ => return Err(ApiError::unavailable("too many large requests at once; try again")),
        };
        let room = announced.map_or(0, |length| usize::try_from(length).unwrap_or(0));
        let collected = tokio::time::timeout(BODY_DEADLINE, collect(Limited::new(body, limit), room));
        let bytes = match collected.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return Err(too_large(limit));
            }
            Ok(Err(error)) => {
                return Err(ApiError::bad_request(format!("request body cannot be read: {error}")));
            }
            Err(_) => {
                return Err(ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("request body did not arrive within {} s", BODY_DEADLINE.as_secs()),
                ));
            }
        };
        require_json(&parts.headers, &bytes)?;
        Ok(Self(bytes))
    }
}

/// The whole body in one piece, of which no second copy is made when its length was announced.
async fn collect(
    mut body: Limited<Body>,
    room: usize,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut bytes = Vec::with_capacity(room);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("request body is larger than {} MiB", limit / MIB))
        .with_hint("use POST /v1/file/upload for large files: it streams")
}

fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| ApiError::bad_request("content-length is not a number"))
}

/// A body that is not JSON is refused by its type: a web page can send text/plain to a loopback port without asking.
fn require_json(headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return if body.is_empty() { Ok(()) } else { Err(not_json("none")) };
    };
    let value = value.to_str().unwrap_or("");
    if is_json(value) { Ok(()) } else { Err(not_json(value)) }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn not_json(found: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("content type is {found}, this route takes application/json"),
    )
}

/// Parses a JSON document, an empty one as `{}`. An error names the field it is about.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let document = &mut serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut *document);
    let parsed = parsed.map_err(|error| wrong(&error.path().to_string(), error.inner()))?;
    document.end().map_err(|error| wrong("", &error))?;
    Ok(parsed)
}

fn wrong(path: &str, error: &serde_json::Error) -> ApiError {
    // The path of the document itself is a dot.
    let path = if path == "." { "" } else { path };
    let message = error.to_string();
    match quoted_after(&message, "missing field ") {
        Some(field) => ApiError::unprocessable(field, format!("field {field} is required"), "missing"),
        None if error.is_data() && path.is_empty() => ApiError::unprocessable("", message, "type_error"),
        None if error.is_data() => ApiError::unprocessable(path, format!("{path}: {message}"), "type_error"),
        None => ApiError::unprocessable("", format!("body is not JSON: {message}"), "json_invalid"),
    }
}

fn quoted_after<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_content_types_are_recognised() {
        for yes in
            ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"]
        {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["text/plain", "text/plain; application/json", "", "application/jsonp", "text/x+json"] {
            assert!(!is_json(no), "{no}");
        }
    }

    #[test]
    fn missing_field_is_named() {
        #[derive(serde::Deserialize, Debug)]
        struct Wanted {
            #[allow(dead_code)]
            command: String,
        }
        let error = parse::<Wanted>(b"").unwrap_err();
        assert_eq!(error.message(), "field command is required");
        assert!(parse::<Wanted>(b"nonsense").is_err());
        assert!(parse::<Wanted>(b"{\"command\": \"x\"} more").is_err());
        let error = parse::<Wanted>(b"{\"command\": 3}").unwrap_err();
        assert!(error.message().starts_with("command: invalid type: integer"), "{}", error.message());
    }
}
