//! Accepting connections, and where each is served.
//!
//! One thread, the front, accepts and answers health checks; nothing else runs on it, so a probe is
//! answered while every other thread is busy. The first bytes of a connection tell which it is: the
//! others are handed to the worker threads.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::app::App;
use crate::http::leftover::Leftover;
use crate::http::{ApiError, guard, reading};
use crate::{auth, context, preview};

const HEALTH: &str = "/v1/sandbox";
const HEALTH_START: &[u8] = b"GET /v1/sandbox";
/// A connection that says nothing, or not all of its headers, is closed after this long.
const HEADER_DEADLINE: Duration = Duration::from_secs(75);
/// Connections at once. The front keeps some for itself beyond those.
const CONNECTIONS: usize = 1024;
/// The kernel's queue of connections not accepted yet.
const BACKLOG: i32 = 1024;

/// Binds the address. Errors name it.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(named)?;
    listener.set_nonblocking(true)?;
    // The standard library's queue is shorter; the kernel takes the new length at any time.
    let _ = rustix::net::listen(&listener, BACKLOG);
    Ok(listener)
}

/// Serves until `shutdown` is done. Runs on the front's runtime; `workers` serve what is not a health check.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    app: App,
    workers: Handle,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let service = Front { app, workers };
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                // Small answers would otherwise wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                tokio::spawn(service.clone().connection(stream, Arc::clone(&slots)));
            }
            // Out of descriptors, or the client is gone already: accepting goes on when that is over.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[derive(Clone)]
struct Front {
    app: App,
    workers: Handle,
}

impl Front {
    async fn connection(self, stream: TcpStream, slots: Arc<Semaphore>) {
        let health = tokio::time::timeout(HEADER_DEADLINE, begins_as_health(&stream)).await;
        let Ok(Ok(health)) = health else { return };
        if health {
            let workers = self.workers.clone();
            return self.talk(stream, Some(workers)).await;
        }
        let Ok(slot) = slots.try_acquire_owned() else {
            return self.refuse(stream).await;
        };
        // A socket belongs to the runtime that registered it.
        let Ok(stream) = stream.into_std() else { return };
        self.workers.clone().spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                self.talk(stream, None).await;
            }
            drop(slot);
        });
    }

    /// Serves one connection. With `elsewhere`, everything but health is run over there.
    async fn talk(self, stream: TcpStream, elsewhere: Option<Handle>) {
        let peer = stream.peer_addr().ok().map(|address| preview::Peer(address.ip().to_canonical()));
        let service = service_fn(|mut request: Request<Incoming>| {
            let (front, elsewhere) = (self.clone(), elsewhere.clone());
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            async move { Ok::<_, Infallible>(front.answer(request, elsewhere).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .max_buf_size(512 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // What goes wrong with a connection is the client's: it sees the broken connection.
        let _ = connection.await;
    }

    async fn answer(self, request: Request<Incoming>, elsewhere: Option<Handle>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (body, leftover) = Leftover::of(body);
        let port = match self.admit(&parts) {
            Ok(port) => port,
            Err(refused) => {
                drop(body);
                leftover.discard().await;
                return refused.into_response();
            }
        };
        if port.is_none() && parts.method == Method::GET && parts.uri.path() == HEALTH {
            drop(body);
            let answer = context::sandbox(State(self.app), parts.headers).await;
            leftover.discard().await;
            return answer;
        }
        let dispatched = dispatch(self.app, port, Request::from_parts(parts, body));
        let response = match elsewhere {
            None => dispatched.await,
            Some(workers) => workers
                .spawn(dispatched)
                .await
                .unwrap_or_else(|_| ApiError::internal("the call failed inside the agent").into_response()),
        };
        leftover.discard().await;
        response
    }

    /// Whether the request may pass, and the port of another program that it is for.
    fn admit(&self, request: &http::request::Parts) -> Result<Option<u16>, ApiError> {
        let (hosts, uri, headers) = (self.app.hosts(), &request.uri, &request.headers);
        guard::check(hosts, &request.method, uri, headers)?;
        let port = preview::port_of(hosts, uri, headers)?;
        // What is open without a token is ours: the same path of another program is not.
        let open = port.is_none() && auth::is_open(&request.method, uri.path());
        if !open {
            self.app.gate().admit(uri, headers)?;
        }
        Ok(port)
    }

    async fn refuse(self, stream: TcpStream) {
        let service = service_fn(|_: Request<Incoming>| async {
            let error = ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("more than {CONNECTIONS} connections"),
            );
            Ok::<_, Infallible>(error.into_response())
        });
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
    }
}

async fn dispatch(app: App, port: Option<u16>, request: Request<Body>) -> Response<Body> {
    if let Some(port) = port {
        if let Some(why) = app.only_reads() {
            return reading::refusal(why).into_response();
        }
        return preview::to_port(app, port, request).await.unwrap_or_else(IntoResponse::into_response);
    }
    match app.routes().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Looks at the first bytes without taking them. A request line that arrives in parts is not
/// waited for: looking again at once would spin, so such a connection goes to the workers.
async fn begins_as_health(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HEALTH_START.len() + 1];
    let length = stream.peek(&mut start).await?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(start[..length].strip_prefix(HEALTH_START).is_some_and(|end| matches!(end, b" " | b"?")))
}
