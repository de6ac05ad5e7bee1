//! HTTP as plain as it gets: any method, any headers, any bytes, a deadline.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long one exchange may take.
const LIMIT: Duration = Duration::from_secs(35);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own: what is tested may depend on it.
///
/// # Errors
/// When there is no answer; the text says why.
pub async fn send(request: http::Request<Vec<u8>>) -> Result<Answer, String> {
    let url = request.uri().to_string();
    let request = request.map(Full::<Bytes>::from);
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| with_sources(&error))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| with_sources(&error))?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    let answer = tokio::time::timeout(LIMIT, exchange).await;
    answer
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
        .map_err(|error: String| format!("{url}: {error}"))
}

/// A GET without anything else.
///
/// # Errors
/// As [`send`].
pub async fn get(url: &str) -> Result<Answer, String> {
    let request = http::Request::get(url).body(Vec::new()).map_err(|error| error.to_string())?;
    send(request).await
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
