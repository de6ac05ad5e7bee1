//! Calls to the agent inside a sandbox. It may be hostile: whatever it answers is bounded and only data.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time;

use super::server::innermost;
use crate::printable::printable;

/// The most bytes of one answer: both streams of a command as base64, as far as the agent keeps them.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// How long a call may take beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most characters of the agent's own words that are repeated.
const MAX_WORDS: usize = 500;

/// The agent of one sandbox.
#[derive(Clone)]
pub(crate) struct Agent {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    url: String,
}

/// What every answer of the API looks like.
#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    success: bool,
    /// `detail` is what others than the agent say on its way.
    #[serde(default, alias = "detail")]
    message: Option<String>,
    data: Option<T>,
}

impl Agent {
    /// The agent behind this sandbox URL.
    pub(crate) fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { http, url: url.trim_end_matches('/').to_owned() }
    }

    /// Calls it; `wait` is how long it was asked to wait.
    ///
    /// # Errors
    /// When it does not answer in time, or not what was asked for.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> anyhow::Result<T> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(serde_json::to_vec(body)?))
            .with_context(|| format!("{:?} is no address of a sandbox", self.url))?;
        let exchange = async {
            let answer =
                self.http.request(request).await.map_err(|error| anyhow::anyhow!(innermost(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let answer = time::timeout(PATIENCE + wait, exchange).await;
        let answer = answer.with_context(|| format!("{} does not answer", self.url))?;
        let (status, body) = answer.with_context(|| format!("no answer from {}", self.url))?;
        if !status.is_success() {
            let said = serde_json::from_slice(&body).ok();
            let said = said.and_then(|envelope: Envelope<serde_json::Value>| envelope.message);
            bail!("the sandbox refused (HTTP {}): {}", status.as_u16(), words(said));
        }
        let envelope: Envelope<T> = serde_json::from_slice(&body)
            .with_context(|| format!("{}{path} answers something else than a sandbox would", self.url))?;
        match envelope.data {
            Some(data) if envelope.success => Ok(data),
            _ => bail!("the sandbox refused: {}", words(envelope.message)),
        }
    }

    /// As [`Self::post`], for calls whose answer does not matter any more: a failure leaves something behind that
    /// the agent clears away later.
    pub(crate) async fn post_last(&self, path: &str, body: &impl Serialize, limit: Duration) {
        let call = self.post::<serde_json::Value>(path, body, Duration::ZERO);
        let _ = time::timeout(limit, call).await;
    }
}

/// The agent's words, fit to be printed.
fn words(said: Option<String>) -> String {
    let said = said.unwrap_or_else(|| "it gave no reason".to_owned());
    printable(&said.chars().take(MAX_WORDS).collect::<String>())
}
