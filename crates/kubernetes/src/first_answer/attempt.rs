//! Asking a URL for its first answer, as a caller does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Between two attempts. One that is refused costs some fifty microseconds.
const PAUSE: Duration = Duration::from_millis(25);
/// For each so many that wait at once, the pause is as long again: the attempts of all have a bound.
const PAUSE_FOR: usize = 16;
/// A connection that is not refused and not made either was probably dropped on its way; TCP itself would try
/// again after a second.
const CONNECT: Duration = Duration::from_millis(500);
/// From the request to the first bytes of the answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Look-ups of names at once. They run on threads that others need too, and may take long to fail.
const LOOKUPS: usize = 8;
/// Between two look-ups of a name that nobody knows.
const LOOKUP_PAUSE: Duration = Duration::from_millis(250);

/// As much of an answer as is looked at: `HTTP/1.1 200`.
const STATUS_LENGTH: usize = 12;

/// The look-ups under way.
#[derive(Debug)]
pub(super) struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Lookups {
    async fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let Ok(place) = Arc::clone(&self.0).acquire_owned().await else { return Vec::new() };
        let host = host.to_owned();
        // In a task of its own: a look-up cannot be stopped, and has its place until it ends.
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            drop(place);
            found.map(|found| found.take(4).collect()).unwrap_or_default()
        });
        lookup.await.unwrap_or_default()
    }
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    host: String,
    port: u16,
    /// What the request says it is for, as in the URL.
    authority: String,
}

impl Place {
    /// The place of one of our own URLs; `None` when it has no port, which ours have.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { host: bare.to_owned(), port: authority.port_u16()?, authority: authority.to_string() })
    }

    /// Asks until it answers 200. `at_once` says how many wait at this moment.
    pub(super) async fn first_answer(&self, lookups: &Lookups, at_once: impl Fn() -> usize) {
        let addresses = loop {
            let addresses = match self.host.parse::<IpAddr>() {
                Ok(address) => vec![SocketAddr::new(address, self.port)],
                Err(_) => lookups.addresses(&self.host, self.port).await,
            };
            if !addresses.is_empty() {
                break addresses;
            }
            sleep(LOOKUP_PAUSE).await;
        };
        loop {
            for address in &addresses {
                if self.is_answering(*address).await.unwrap_or(false) {
                    return;
                }
            }
            let times = u32::try_from(at_once() / PAUSE_FOR).unwrap_or(u32::MAX).saturating_add(1);
            sleep(PAUSE.saturating_mul(times)).await;
        }
    }

    async fn is_answering(&self, address: SocketAddr) -> io::Result<bool> {
        let mut stream = timeout(CONNECT, TcpStream::connect(address)).await??;
        let exchange = async {
            let request = format!(
                "GET /v1/sandbox HTTP/1.1\r\nhost: {}\r\nuser-agent: stockade\r\nconnection: close\r\n\r\n",
                self.authority
            );
            stream.write_all(request.as_bytes()).await?;
            let mut status = [0; STATUS_LENGTH];
            stream.read_exact(&mut status).await?;
            Ok(matches!(&status, b"HTTP/1.1 200" | b"HTTP/1.0 200"))
        };
        timeout(ANSWER, exchange).await?
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_says_where_it_leads() {
        let place = |url| Place::of(url).map(|place| (place.host, place.port));
        assert_eq!(place("http://10.0.0.1:30000"), Some(("10.0.0.1".to_owned(), 30000)));
        assert_eq!(place("http://[fd00::1]:30000"), Some(("fd00::1".to_owned(), 30000)));
        let service = "http://sandbox-a-svc.deer-flow.svc.cluster.local:8080";
        assert_eq!(place(service), Some(("sandbox-a-svc.deer-flow.svc.cluster.local".to_owned(), 8080)));
        assert_eq!(place("http://node"), None);
    }

    /// A listener that gives one connection after the other the next of these answers, then the last for ever.
    async fn mk_place(answers: &'static [&'static str]) -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::of(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = answers[answers.len().min(number + 1) - 1];
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        place
    }

    #[tokio::test]
    async fn only_200_is_an_answer_and_nothing_else_ends_the_asking() {
        let answers =
            &["", "\0\0\0\0", "HTTP/1.1 502 Bad Gateway\r\n\r\n", "nonsense 200 nonsense", "HTTP/1.1 200 OK"];
        let place = mk_place(answers).await;
        let lookups = Lookups::default();
        let answered = place.first_answer(&lookups, || 1);
        timeout(Duration::from_secs(30), answered).await.unwrap();
    }

    #[tokio::test]
    async fn a_name_nobody_knows_and_a_silent_place_are_never_an_answer() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = Place::of(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
        for place in [silent, Place::of("http://no-such-host.invalid:80").unwrap()] {
            let lookups = Lookups::default();
            let asked = place.first_answer(&lookups, || 1);
            assert!(timeout(Duration::from_millis(600), asked).await.is_err(), "{place:?}");
        }
    }
}
