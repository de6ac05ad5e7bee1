//! A typed client, over plain HTTP. The sandboxes' own servers speak plain HTTP too; TLS belongs to
//! whatever stands in front of both.

mod error;
mod log;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::time;

pub use self::error::ClientError;
pub use self::log::LogBody;
use crate::query::LogQuery;
use crate::{Capabilities, CreateSandbox, Deleted, EventList, Health, Readiness, Reconciliation};
use crate::{Sandbox, SandboxList};

/// The most bytes of an answer: some 100,000 sandboxes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// How long each call may take, answer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A create, waiting for readiness included.
    pub create: Duration,
    /// A delete.
    pub delete: Duration,
    /// Everything that only reads.
    pub read: Duration,
}

impl Default for Deadlines {
    /// Those of DeerFlow's client: 30 s, 15 s, 10 s.
    fn default() -> Self {
        Self {
            create: Duration::from_secs(30),
            delete: Duration::from_secs(15),
            read: Duration::from_secs(10),
        }
    }
}

/// Calls one server. Connections are kept and shared by clones.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    base: String,
    key: Option<HeaderValue>,
    deadlines: Deadlines,
}

impl Client {
    /// A client of the server at this address: `http://127.0.0.1:8002`.
    ///
    /// # Errors
    /// When the address is not one, or the key cannot stand in a header.
    pub fn new(base: &str, key: Option<&SecretString>) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let is_http = base.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none()
        });
        if !is_http {
            return Err(ClientError::BaseUrl { url: base });
        }
        let key = key.map(|key| HeaderValue::from_str(key.expose_secret())).transpose();
        let mut key = key.map_err(|_| ClientError::Key)?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { http, base, key, deadlines: Deadlines::default() })
    }

    /// The same with other deadlines.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Self {
        Self { deadlines, ..self }
    }

    /// Makes a sandbox, or returns the one that is there.
    ///
    /// # Errors
    /// See [`ClientError`]; so everywhere.
    pub async fn create(&self, request: &CreateSandbox) -> Result<Sandbox<'static>, ClientError> {
        self.create_at("/api/sandboxes", request).await
    }

    /// The same, and answers when the sandbox is ready or `patience` is over. Whole seconds count.
    ///
    /// # Errors
    /// As [`Self::create`]. A sandbox that is not ready in time is not an error.
    pub async fn create_ready(
        &self,
        request: &CreateSandbox,
        patience: Duration,
    ) -> Result<Sandbox<'static>, ClientError> {
        let path = format!("/api/sandboxes?wait=ready&timeout={}", patience.as_secs());
        self.create_at(&path, request).await
    }

    async fn create_at(&self, path: &str, request: &CreateSandbox) -> Result<Sandbox<'static>, ClientError> {
        let body = serde_json::to_vec(request).map_err(|source| ClientError::Request { source })?;
        let (status, answer) =
            self.call("create", Method::POST, path, Some(body), self.deadlines.create).await?;
        read(status, &answer)
    }

    /// The sandbox of this id, when it is there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn get(&self, id: &str) -> Result<Option<Sandbox<'static>>, ClientError> {
        match self.read("get", &format!("/api/sandboxes/{}", encoded(id))).await {
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// All sandboxes that have an address.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn list(&self) -> Result<SandboxList, ClientError> {
        self.read("list", "/api/sandboxes").await
    }

    /// Ends the sandbox of this id; also a success when there is none.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn delete(&self, id: &str) -> Result<Deleted, ClientError> {
        let path = format!("/api/sandboxes/{}", encoded(id));
        let (status, answer) =
            self.call("delete", Method::DELETE, &path, None, self.deadlines.delete).await?;
        read(status, &answer)
    }

    /// Stops the processes of the sandbox of this id where they are.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn pause(&self, id: &str) -> Result<Sandbox<'static>, ClientError> {
        self.change("pause", id).await
    }

    /// Lets the paused sandbox of this id run on.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn resume(&self, id: &str) -> Result<Sandbox<'static>, ClientError> {
        self.change("resume", id).await
    }

    async fn change(&self, operation: &'static str, id: &str) -> Result<Sandbox<'static>, ClientError> {
        let path = format!("/api/sandboxes/{}/{operation}", encoded(id));
        let (status, answer) = self.call(operation, Method::POST, &path, None, self.deadlines.read).await?;
        read(status, &answer)
    }

    /// What the main process of the sandbox of this id wrote, in pieces as they come.
    ///
    /// # Errors
    /// As [`Self::create`]; that the sandbox is not there is [`ClientError::Refused`].
    pub async fn logs(&self, id: &str, query: LogQuery) -> Result<LogBody, ClientError> {
        let path = format!("/api/sandboxes/{}/logs?{query}", encoded(id));
        let request = self.request(Method::GET, &path, None)?;
        let limit = self.deadlines.read;
        let exchange = self.http.request(request);
        let timed_out = ClientError::TimedOut { operation: "logs", limit };
        let answer = time::timeout(limit, exchange).await.map_err(|_| timed_out)?;
        let answer = answer.map_err(|source| ClientError::Unreachable { url: self.base.clone(), source })?;
        LogBody::of(answer, limit).await
    }

    /// The truth about the sandbox of this id.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn reconcile(&self, id: &str) -> Result<Reconciliation, ClientError> {
        self.read("reconcile", &format!("/api/reconciliation/sandboxes/{}", encoded(id))).await
    }

    /// What happened to the sandbox of this id lately.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn events(&self, id: &str) -> Result<EventList, ClientError> {
        self.read("events", &format!("/api/sandboxes/{}/events", encoded(id))).await
    }

    /// What the server can provide.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn capabilities(&self) -> Result<Capabilities, ClientError> {
        self.read("capabilities", "/api/capabilities").await
    }

    /// Whether the server lives.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.read("health", "/health").await
    }

    /// Whether the server's answers can be relied on. That they cannot is an answer, not an error.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn ready(&self) -> Result<Readiness, ClientError> {
        let (status, answer) = self.call("ready", Method::GET, "/readyz", None, self.deadlines.read).await?;
        match status {
            StatusCode::SERVICE_UNAVAILABLE => parse(status, &answer),
            _ => read(status, &answer),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|_| ClientError::BaseUrl { url: self.base.clone() })
    }

    async fn read<T: DeserializeOwned>(&self, operation: &'static str, path: &str) -> Result<T, ClientError> {
        let (status, answer) = self.call(operation, Method::GET, path, None, self.deadlines.read).await?;
        read(status, &answer)
    }

    async fn call(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let answer = self
                .http
                .request(request)
                .await
                .map_err(|source| ClientError::Unreachable { url: self.base.clone(), source })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|source| ClientError::Answer { status: status.as_u16(), source })?;
            Ok((status, body.to_bytes()))
        };
        time::timeout(limit, exchange).await.unwrap_or(Err(ClientError::TimedOut { operation, limit }))
    }
}

/// An id as a part of a path, whatever is in it.
fn encoded(id: &str) -> impl fmt::Display {
    utf8_percent_encode(id, NON_ALPHANUMERIC)
}

fn read<T: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<T, ClientError> {
    if status.is_success() { parse(status, answer) } else { Err(ClientError::of(status, answer)) }
}

fn parse<T: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer)
        .map_err(|error| ClientError::Answer { status: status.as_u16(), source: error.into() })
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key, even as a placeholder of its length.
        f.debug_struct("Client").field("base", &self.base).field("has_key", &self.key.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for good in ["http://127.0.0.1:8002", "http://[::1]:8002/", "http://stockade/prefix"] {
            assert!(Client::new(good, None).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:8002", "https://x", "ftp://x", "http://", "http://x/?q"] {
            assert!(matches!(Client::new(bad, None), Err(ClientError::BaseUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let client = Client::new("http://x", Some(&SecretString::from("s3cret"))).unwrap();
        assert!(!format!("{client:?}").contains("s3cret"));
        let error = Client::new("http://x", Some(&SecretString::from("s3cret\n"))).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("s3cret"));
    }

    #[test]
    fn an_id_stays_one_part_of_the_path() {
        assert_eq!(encoded("a/../b?c\n").to_string(), "a%2F%2E%2E%2Fb%3Fc%0A");
    }
}
