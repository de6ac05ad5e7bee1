//! Asking a running server whether it lives. Containers use it for their health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use stockade_api::client::{Client, ClientError, Deadlines};

use crate::settings::DEFAULT_LISTEN;

/// Shorter than the 5 s that container health checks usually have.
const DEADLINE: Duration = Duration::from_secs(3);

/// The server on this machine that listens as `STOCKADE_LISTEN` says.
pub(crate) fn default_url(listen: Option<String>) -> String {
    reachable(listen.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LISTEN))
}

/// The URL by which this machine reaches a server that listens there.
pub(crate) fn reachable(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// Whether the server lives.
///
/// # Errors
/// When it does not answer well in time.
pub(crate) async fn check(url: &str) -> Result<(), ClientError> {
    let deadlines = Deadlines { read: DEADLINE, ..Deadlines::default() };
    Client::new(url, None)?.with_deadlines(deadlines).health().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: Option<&str>, expect: &str) {
        assert_eq!(default_url(listen.map(str::to_owned)), expect, "{listen:?}");
    }

    #[test]
    fn the_own_server_is_asked_over_loopback() {
        check(None, "http://127.0.0.1:8002");
        check(Some(""), "http://127.0.0.1:8002");
        check(Some("0.0.0.0:9000"), "http://127.0.0.1:9000");
        check(Some("[::]:9000"), "http://[::1]:9000");
        check(Some("10.0.0.1:9000"), "http://10.0.0.1:9000");
    }
}
