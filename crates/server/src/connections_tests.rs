use std::net::SocketAddr;

use stockade_api::CreateSandbox;
use stockade_api::client::Client;
use stockade_core::ContractVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::test_backend::{KEY, MemoryBackend, mk_router};

/// Longer than any test: what ends before it ended by itself.
const LONG: Duration = Duration::from_secs(600);

/// A server with a socket.
struct Server {
    backend: Arc<MemoryBackend>,
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

impl Server {
    async fn start(limits: ConnectionLimits, drain: Duration) -> Self {
        let backend = MemoryBackend::new(ContractVersion::V2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let shutdown_asked = async { asked.await.unwrap_or_default() };
        let serving = tokio::spawn(serve_with(limits, listener, mk_router(&backend), shutdown_asked, drain));
        Self { backend, address, shutdown, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), Some(&KEY.into())).unwrap()
    }

    async fn stop(self) -> Drained {
        self.shutdown.send(()).unwrap();
        self.serving.await.unwrap()
    }

    /// A create that has reached the backend and stays there.
    async fn stuck_create(&self) -> JoinHandle<bool> {
        self.backend.creates.forget_permits(usize::MAX);
        let client = self.client();
        let create = tokio::spawn(async move { client.create(&CreateSandbox::new("stuck")).await.is_ok() });
        self.backend.begun.acquire().await.unwrap().forget();
        create
    }
}

/// All that comes until the other side closes.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

fn mk_get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n")
}

#[tokio::test]
async fn the_client_and_the_server_understand_each_other() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let client = server.client();
    assert_eq!(client.health().await.unwrap().status, "ok");
    assert!(client.ready().await.unwrap().ready);
    assert_eq!(client.capabilities().await.unwrap().mount_contract_version, Some(2));
    let made = client.create(&CreateSandbox::new("s1")).await.unwrap();
    assert_eq!(client.get("s1").await.unwrap(), Some(made.clone()));
    assert_eq!(client.list().await.unwrap().sandboxes, [made]);
    assert_eq!(client.reconcile("s1").await.unwrap().status, "found");
    assert_eq!(client.events("s1").await.unwrap().events[0].reason, "FailedMount");
    assert!(client.delete("s1").await.unwrap().ok);
    assert_eq!(client.get("s1").await.unwrap(), None);
    let invalid = client.create(&CreateSandbox::new("Bad Id")).await.unwrap_err();
    assert!(invalid.to_string().starts_with("sandbox_id: "), "{invalid}");
    let stranger = Client::new(&format!("http://{}", server.address), Some(&"other".into())).unwrap();
    let refused = stranger.list().await.unwrap_err();
    assert!(refused.to_string().contains("PROVISIONER_API_KEY"), "{refused}");
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn requests_sent_in_one_go_are_answered_in_their_order() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let mut stream = server.connect().await;
    let requests = format!(
        "{}\r\n{}\r\n{}connection: close\r\n\r\n",
        mk_get("/health"),
        mk_get("/api/sandboxes/none"),
        mk_get("/api/capabilities"),
    );
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answers = read_all(&mut stream).await;
    let statuses: Vec<_> = answers.lines().filter(|line| line.contains("HTTP/1.1 ")).collect();
    assert_eq!(statuses.len(), 3, "{answers}");
    assert!(answers.starts_with("HTTP/1.1 200"));
    assert!(answers.find("not_found").unwrap() < answers.find("lark_cli_init_image").unwrap());
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let limits = ConnectionLimits { head: Duration::from_millis(50), ..ConnectionLimits::default() };
    let server = Server::start(limits, LONG).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost: local", &format!("{}\r\n", mk_get("/health"))] {
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        read_all(&mut stream).await; // hangs forever unless the server closes
    }
    assert_eq!(server.client().health().await.unwrap().status, "ok");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let mut stream = server.connect().await;
    let huge = format!("{}x-filler: {}\r\n\r\n", mk_get("/health"), "x".repeat(64 * 1024));
    // The server may have hung up before it has all.
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_streamed_body_is_cut_at_its_bound() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let (mut answers, mut requests) = server.connect().await.into_split();
    let head = format!(
        "POST /api/sandboxes HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let sending = tokio::spawn(async move {
        requests.write_all(head.as_bytes()).await?;
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        loop {
            // Never ends by itself.
            requests.write_all(chunk.as_bytes()).await?;
        }
        #[allow(unreachable_code)] // gives the block its type
        std::io::Result::Ok(())
    });
    let mut start = [0; 12];
    answers.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    assert!(sending.await.unwrap().is_err(), "the server hangs up on the rest");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_when_all_have_a_request() {
    let limits = ConnectionLimits { max: 1, ..ConnectionLimits::default() };
    let server = Server::start(limits, LONG).await;
    let create = server.stuck_create().await;
    let answer = read_all(&mut server.connect().await).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(serde_json::from_str::<stockade_api::ErrorBody>(body).is_ok());
    server.backend.creates.add_permits(1);
    assert!(create.await.unwrap());
}

#[tokio::test]
async fn connections_that_ask_nothing_lock_nobody_out_whatever_they_have_begun() {
    let limits = ConnectionLimits { max: 3, head: LONG, ..ConnectionLimits::default() };
    let server = Server::start(limits, LONG).await;
    let create = server.stuck_create().await;
    let half_a_body = format!(
        "POST /api/sandboxes HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let answered = format!("{}\r\n", mk_get("/health"));
    let mut idle = Vec::new();
    for begun in ["", "GET / HTTP/1.1\r\nhost: local", &half_a_body, &answered] {
        for _ in 0..5 {
            let mut stream = server.connect().await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            idle.push(stream);
        }
        assert_eq!(server.client().health().await.unwrap().status, "ok", "{begun:?}");
    }
    // All but the last ones have been hung up on.
    for stream in &mut idle[..15] {
        read_all(stream).await;
    }
    assert!(!create.is_finished(), "a whole request keeps its place");
    server.backend.creates.add_permits(1);
    assert!(create.await.unwrap());
}

#[tokio::test]
async fn a_list_on_its_way_keeps_its_place() {
    let limits = ConnectionLimits { max: 2, ..ConnectionLimits::default() };
    let server = Server::start(limits, LONG).await;
    server.backend.fill(10_000);
    let mut reading = server.connect().await;
    let request = format!("{}connection: close\r\n\r\n", mk_get("/api/sandboxes"));
    reading.write_all(request.as_bytes()).await.unwrap();
    reading.peek(&mut [0]).await.unwrap();
    for _ in 0..10 {
        server.client().health().await.unwrap();
        server.connect().await;
    }
    let answer = read_all(&mut reading).await;
    assert!(answer.ends_with("\"count\":10000}"), "{}", &answer[answer.len().saturating_sub(80)..]);
}

#[tokio::test]
async fn requests_under_way_are_finished_and_new_ones_refused() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let create = server.stuck_create().await;
    server.shutdown.send(()).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.backend.creates.add_permits(1);
    assert!(create.await.unwrap());
    assert_eq!(server.serving.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    let silent = server.connect().await;
    let mut kept_alive = server.connect().await;
    kept_alive.write_all(format!("{}\r\n", mk_get("/health")).as_bytes()).await.unwrap();
    kept_alive.read_u8().await.unwrap();
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
    drop(silent);
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let server = Server::start(ConnectionLimits::default(), Duration::from_millis(50)).await;
    let create = server.stuck_create().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: local").await.unwrap();
    // Only when this is answered has the server taken the connection before it.
    server.client().health().await.unwrap();
    assert_eq!(server.stop().await, Drained { cut_off: 2 });
    assert!(!create.await.unwrap());
}

#[tokio::test]
async fn a_list_of_ten_thousand_arrives_whole() {
    let server = Server::start(ConnectionLimits::default(), LONG).await;
    server.backend.fill(10_000);
    let list = server.client().list().await.unwrap();
    assert_eq!((list.count, list.sandboxes.len()), (10_000, 10_000));
    assert!(list.sandboxes.is_sorted_by(|a, b| a.sandbox_id < b.sandbox_id));
}

#[tokio::test]
async fn a_caller_that_does_not_read_is_hung_up_on() {
    let limits = ConnectionLimits { stall: Duration::from_millis(50), ..ConnectionLimits::default() };
    let server = Server::start(limits, LONG).await;
    server.backend.fill(10_000);
    let mut stream = server.connect().await;
    let requests = format!("{}\r\n", mk_get("/api/sandboxes")).repeat(8);
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream.peek(&mut [0]).await.unwrap();
    // Nothing is read; the end comes all the same, as nothing else ends an unread connection.
    let Server { shutdown, serving, .. } = server;
    shutdown.send(()).unwrap();
    assert_eq!(serving.await.unwrap(), Drained { cut_off: 0 });
}
