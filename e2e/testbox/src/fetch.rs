//! An HTTP GET from inside the Pod: proves that a URL works where the sandbox is.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;

use crate::routes::refuse;

const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_LIMIT: usize = 1024 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
pub(crate) struct UrlQuery {
    url: String,
}

/// 200 with the inner status and body, 502 when there was no answer, 504 when it took too long.
pub(crate) async fn fetch(Query(UrlQuery { url }): Query<UrlQuery>) -> Response {
    match tokio::time::timeout(TIMEOUT, get(&url)).await {
        Ok(Ok((status, body))) => Json(json!({ "url": url, "status": status, "body": body })).into_response(),
        Ok(Err(error)) => refuse(StatusCode::BAD_GATEWAY, "fetch", &format!("{url}: {error}")),
        Err(_) => refuse(StatusCode::GATEWAY_TIMEOUT, "timeout", &format!("{url}: no answer in {TIMEOUT:?}")),
    }
}

async fn get(url: &str) -> Result<(u16, String), Failure> {
    let uri: Uri = url.parse()?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// URLs are fetched".into());
    }
    let host = uri.host().ok_or("the URL has no host")?;
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the sender is dropped or the peer closes.
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = hyper::Request::get(path)
        .header(header::HOST, format!("{host}:{port}"))
        .body(Empty::<hyper::body::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), BODY_LIMIT).collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
