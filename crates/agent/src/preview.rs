//! What listens in the sandbox, seen from outside: `/proxy/{port}/`, `/absproxy/{port}/`, the header
//! `x-aio-proxy-port`, and host names that begin with the port. WebSockets pass through.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::app::App;
use crate::http::ApiError;
use crate::http::guard::{self, KnownHosts};

const PORT_HEADER: &str = "x-aio-proxy-port";
const CONNECT: Duration = Duration::from_secs(5);
/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/proxy/{port}", any(stripped_root))
        .route("/proxy/{port}/", any(stripped_root))
        .route("/proxy/{port}/{*rest}", any(stripped))
        .route("/absproxy/{port}", any(kept_root))
        .route("/absproxy/{port}/", any(kept_root))
        .route("/absproxy/{port}/{*rest}", any(kept))
}

async fn stripped_root(State(app): State<App>, Path(port): Path<String>, request: Request) -> Answer {
    forward(&app, &port, true, request).await
}

async fn stripped(
    State(app): State<App>,
    Path((port, _)): Path<(String, String)>,
    request: Request,
) -> Answer {
    forward(&app, &port, true, request).await
}

async fn kept_root(State(app): State<App>, Path(port): Path<String>, request: Request) -> Answer {
    forward(&app, &port, false, request).await
}

async fn kept(State(app): State<App>, Path((port, _)): Path<(String, String)>, request: Request) -> Answer {
    forward(&app, &port, false, request).await
}

/// The port that a request is for as a whole, whatever its path: by a header, or by the name it came to.
pub(crate) fn port_of(known: &KnownHosts, uri: &Uri, headers: &HeaderMap) -> Result<Option<u16>, ApiError> {
    match headers.get(PORT_HEADER) {
        Some(port) => parse_port(&String::from_utf8_lossy(port.as_bytes())).map(Some),
        None => Ok(guard::previewed_port(known, uri, headers)),
    }
}

/// Passes a request on to a port, with its path as it is.
pub(crate) async fn to_port(app: App, port: u16, request: Request) -> Answer {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    pass_on(&app, port, &path, request).await
}

async fn forward(app: &App, port: &str, strip: bool, request: Request) -> Answer {
    let path = target(request.uri(), port, strip);
    pass_on(app, parse_port(port)?, &path, request).await
}

fn parse_port(port: &str) -> Result<u16, ApiError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|port| digits && *port > 0);
    number.ok_or_else(|| ApiError::bad_request(format!("{port:?} is not a port from 1 to 65535")))
}

async fn pass_on(app: &App, number: u16, path: &str, mut request: Request) -> Answer {
    let unreachable = |reason: String| {
        ApiError::new(StatusCode::BAD_GATEWAY, format!("nothing answers on port {number}: {reason}"))
            .with_hint("start the server in the sandbox and let it listen on 127.0.0.1 or 0.0.0.0")
    };
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(("127.0.0.1", number))).await;
    let stream =
        stream.map_err(|_| unreachable("time-out".to_owned()))?.map_err(|e| unreachable(e.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    tokio::spawn(connection.with_upgrades());

    let path = path.parse().map_err(|_| ApiError::bad_request(format!("{path:?} is not a path")))?;
    *request.uri_mut() = path;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let from_client = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    clean(request.headers_mut(), upgrade.as_ref());
    request.headers_mut().remove(PORT_HEADER);
    if app.gate().is_shut() {
        // The caller's token is for us. What listens in the sandbox is not trusted with it.
        request.headers_mut().remove(header::AUTHORIZATION);
    }
    request.extensions_mut().clear();
    let mut response = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(from_client) = from_client
    {
        let from_server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(client), Ok(server)) = tokio::join!(from_client, from_server) {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                // Either side may hang up at any time: that ends the pair.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
    let upgraded = response.headers().get(header::UPGRADE).cloned();
    let switching = upgraded.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
    clean(response.headers_mut(), switching.as_ref());
    Ok(response.map(Body::new))
}

/// The path the server in the sandbox sees.
fn target(uri: &Uri, port: &str, strip: bool) -> String {
    let whole = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if strip { whole.strip_prefix(&format!("/proxy/{port}")).unwrap_or(whole) } else { whole };
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn clean(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_stripped_or_kept() {
        for (uri, strip, expect) in [
            ("/proxy/80/a/b?q=1", true, "/a/b?q=1"),
            ("/proxy/80", true, "/"),
            ("/proxy/80/", true, "/"),
            ("/proxy/80?q", true, "/?q"),
            ("/absproxy/80/a", false, "/absproxy/80/a"),
        ] {
            assert_eq!(target(&uri.parse().unwrap(), "80", strip), expect, "{uri}");
        }
    }
}
