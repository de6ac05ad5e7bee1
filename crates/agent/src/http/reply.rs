//! The envelope every answer comes in, and the errors that use the same shape.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::kills::Verdict;

#[derive(Serialize)]
struct Envelope<'a, T> {
    success: bool,
    message: &'a str,
    data: T,
    hint: Option<&'a str>,
}

/// A success before it is written.
pub(crate) struct Success<T> {
    pub(crate) message: Cow<'static, str>,
    pub(crate) data: T,
    /// A sentence for the agent that reads it.
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl<T: Serialize> Success<T> {
    fn envelope(&self) -> Envelope<'_, &T> {
        Envelope { success: true, message: &self.message, data: &self.data, hint: self.hint.as_deref() }
    }

    /// Says what became of it when memory was short.
    pub(crate) fn after(mut self, verdict: Option<Verdict>) -> Self {
        let Some(Verdict { it, text }) = verdict else { return self };
        let before = self.hint.take().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.hint = Some(format!("{text}{before}").into());
        if it {
            self.message = text.into();
        }
        self
    }

    /// The envelope as text.
    pub(crate) fn text(&self) -> String {
        // The types of answers have string keys, and cannot fail to be written.
        serde_json::to_string(&self.envelope()).unwrap_or_default()
    }
}

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        envelope(StatusCode::OK, &self.envelope())
    }
}

/// A 200 with `data` in the envelope.
pub(crate) fn ok<T: Serialize>(message: &str, data: T) -> Response {
    envelope(StatusCode::OK, &Envelope { success: true, message, data, hint: None })
}

/// A 200 with `data`, and a sentence for whoever reads it.
pub(crate) fn ok_with_hint<T: Serialize>(message: &str, data: T, hint: Option<&str>) -> Response {
    envelope(StatusCode::OK, &Envelope { success: true, message, data, hint })
}

/// Plain JSON without the envelope, for the few routes that answer so.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    envelope(status, body)
}

fn envelope<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(bytes.into());
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        // Only a map with non-string keys or a failing Serialize gets here: a defect of ours, said as such.
        Err(error) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("answer cannot be written: {error}"))
                .into_response()
        }
    }
}

/// An answer that is not a success, at the level of HTTP.
/// Boxed because results carry this type everywhere.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    message: String,
    hint: Option<String>,
    detail: Option<Value>,
    data: Option<Value>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { status, message: message.into(), hint: None, detail: None, data: None }))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Expected by the SDK as a 422 whose `detail` is a list of what is wrong where.
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::unprocessable(field, message, "value_error")
    }

    pub(crate) fn unprocessable(field: &str, message: impl Into<String>, kind: &str) -> Self {
        let loc = if field.is_empty() { json!(["body"]) } else { json!(["body", field]) };
        Self::unprocessable_at(&loc, message.into(), kind)
    }

    /// The same for what is wrong with the query of an address.
    pub(crate) fn wrong_query(message: impl Into<String>) -> Self {
        Self::unprocessable_at(&json!(["query"]), message.into(), "value_error")
    }

    fn unprocessable_at(loc: &Value, message: String, kind: &str) -> Self {
        let detail = json!([{ "loc": loc, "msg": message, "type": kind }]);
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, message);
        error.0.detail = Some(detail);
        error
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A failed call answered with 200 and an object that says what failed, as the file routes do.
    pub(crate) fn failed_call<T: Serialize>(message: impl Into<String>, data: &T) -> Self {
        let mut error = Self::new(StatusCode::OK, message);
        error.0.data = serde_json::to_value(data).ok();
        error
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { status, message, hint, detail, data } = *self.0;
        let mut body = json!({
            "success": false, "message": message, "data": data, "hint": hint,
        });
        if let (Some(detail), Value::Object(map)) = (detail, &mut body) {
            map.insert("detail".to_owned(), detail);
        }
        let mut response = Response::new(body.to_string().into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
