//! Connections: how many, how slow, and how they end.

use std::convert::Infallible;
use std::future::{self, Future};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tower::ServiceExt;

use crate::places::{Place, Places};
use crate::stall::Stall;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once. One more takes the place of one without a request, or is told so and closed.
    pub max: usize,
    /// How long the head of a request may take, from its first byte or from the answer before.
    pub head: Duration,
    /// The most bytes of one head.
    pub head_bytes: usize,
    /// How long a caller may take nothing of its answer.
    pub stall: Duration,
}

impl Default for ConnectionLimits {
    /// 2,048 connections of some ten kilobytes each; heads of 16 KiB within 15 s; 30 s without progress.
    fn default() -> Self {
        Self {
            max: 2048,
            head: Duration::from_secs(15),
            head_bytes: 16 * 1024,
            stall: Duration::from_secs(30),
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not ended by themselves when the time was up.
    pub cut_off: usize,
}

/// Told to whoever comes when there are too many connections.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 64\r\n\r\n\
    {\"detail\":\"too many connections; try again\",\"code\":\"overloaded\"}";

/// Serves until `shutdown` is done, then lets requests under way finish for at most `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Drained {
    serve_with(ConnectionLimits::default(), listener, router, shutdown, drain).await
}

/// As [`serve`], with other bounds.
pub async fn serve_with(
    limits: ConnectionLimits,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Drained {
    let (stop, stopped) = watch::channel(());
    let places = Places::new(limits.max);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            stream = accept(&listener) => stream,
        };
        let Some(place) = places.take() else {
            // What fits into an empty socket buffer needs no waiting.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let answers =
            Answers { router: router.clone(), places: Arc::clone(&places), place: Arc::clone(&place) };
        let connection = serve_connection(limits, stream, answers, stopped.clone());
        let places = Arc::clone(&places);
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = place.lost() => tracing::debug!("a connection without a request gave way to a new one"),
            }
            places.leave(&place);
        });
    }
    // New callers are refused at once; a load balancer sends them elsewhere.
    drop(listener);
    drop(stop);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = time::timeout(drain, all_ended).await;
    let cut_off = connections.len();
    connections.shutdown().await;
    Drained { cut_off }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Usually no file descriptors are left. Trying again at once would only burn the processor.
                tracing::error!(%error, "cannot accept connections; trying again in a second");
                time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answers {
    router: Router,
    places: Arc<Places>,
    place: Arc<Place>,
}

impl Answers {
    async fn answer(self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let (head, body) = request.into_parts();
        let Some(turn) = self.places.begin(&self.place, body.is_end_stream()) else {
            // The connection is being closed.
            return future::pending().await;
        };
        let request = Request::from_parts(head, turn.watched(Body::new(body)));
        let answer = self.router.oneshot(request).await?;
        Ok(answer.map(|body| turn.until_the_end_of(body)))
    }
}

async fn serve_connection(
    limits: ConnectionLimits,
    stream: TcpStream,
    answers: Answers,
    mut stopped: watch::Receiver<()>,
) {
    // Small answers must not wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .serve_connection(
            TokioIo::new(Stall::new(stream, limits.stall)),
            service_fn(move |request| answers.clone().answer(request)),
        );
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
