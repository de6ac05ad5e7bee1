//! What listens in the sandbox, seen from outside: `/proxy/{port}/`, `/absproxy/{port}/`, the header
//! `x-aio-proxy-port`, and host names that begin with the port. WebSockets pass through.

mod headers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use self::headers::Seen;
use crate::app::App;
use crate::http::ApiError;
use crate::http::guard::{self, KnownHosts};

const PORT_HEADER: &str = "x-aio-proxy-port";
const CONNECT: Duration = Duration::from_secs(5);
/// Where programs listen that are for this machine alone. Many listen on one of them: on which depends on what
/// `localhost` means to them first.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Who made a connection to the agent, as an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

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
    pass_on(&app, port, &path, "", request).await
}

async fn forward(app: &App, port: &str, strip: bool, request: Request) -> Answer {
    let path = target(request.uri(), port, strip);
    let prefix = if strip { format!("/proxy/{port}") } else { String::new() };
    pass_on(app, parse_port(port)?, &path, &prefix, request).await
}

fn parse_port(port: &str) -> Result<u16, ApiError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|port| digits && *port > 0);
    number.ok_or_else(|| ApiError::bad_request(format!("{port:?} is not a port from 1 to 65535")))
}

fn unreachable(port: u16, reason: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, format!("nothing answers on port {port}: {reason}"))
        .with_hint("start the server in the sandbox and let it listen on 127.0.0.1, ::1, 0.0.0.0 or ::")
}

/// Connects to whatever listens on the port.
async fn connect(port: u16) -> Result<TcpStream, ApiError> {
    let mut reasons = Vec::new();
    for address in LOOPBACKS.map(|address| SocketAddr::new(address, port)) {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reasons.push(format!("{address}: {error}")),
            Err(_) => reasons.push(format!("{address}: time-out")),
        }
    }
    Err(unreachable(port, &reasons.join("; ")))
}

async fn pass_on(app: &App, number: u16, path: &str, prefix: &str, mut request: Request) -> Answer {
    let stream = connect(number).await?;
    let unreachable = |reason: hyper::Error| unreachable(number, &reason.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(unreachable)?;
    tokio::spawn(connection.with_upgrades());

    let path = path.parse().map_err(|_| ApiError::bad_request(format!("{path:?} is not a path")))?;
    *request.uri_mut() = path;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let from_client = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    headers::clean(request.headers_mut(), upgrade.as_ref());
    let peer = request.extensions().get::<Peer>().copied();
    let seen = Seen::of(request.headers(), number, prefix);
    seen.tell(request.headers_mut(), peer.map(|Peer(address)| address));
    request.headers_mut().remove(PORT_HEADER);
    if app.gate().is_shut() {
        // The caller's token is for us. What listens in the sandbox is not trusted with it.
        request.headers_mut().remove(header::AUTHORIZATION);
    }
    request.extensions_mut().clear();
    let mut response = sender.send_request(request).await.map_err(unreachable)?;
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
    headers::clean(response.headers_mut(), switching.as_ref());
    seen.turn_back(response.headers_mut());
    Ok(response.map(Body::new))
}

/// The path the server in the sandbox sees.
fn target(uri: &Uri, port: &str, strip: bool) -> String {
    let whole = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if strip { whole.strip_prefix(&format!("/proxy/{port}")).unwrap_or(whole) } else { whole };
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
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
