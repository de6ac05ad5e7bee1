//! The program of the test sandbox image: a small HTTP server that tells what a sandbox can see.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/sandbox` | 200, host name and the *names* of the environment variables |
//! | `GET /env?name=` | the value of one variable, 404 when it is not set |
//! | `GET /mounts` | `/proc/self/mountinfo`, parsed |
//! | `GET /files?path=` | a directory's entries as JSON, or a file's first MiB |
//! | `PUT /files?path=` | writes the body; 403, 404, 409 or 500 with the errno's name otherwise |
//! | `GET /fetch?url=` | does an HTTP GET from inside the Pod, returns its status and body |
//! | `POST /exit?code=` | ends the process |
//! | `POST /allocate?mib=` | allocates, touches and keeps memory |

mod fetch;
mod files;
mod mountinfo;
mod routes;

use std::io::Write as _;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const DEFAULT_PORT: u16 = 8080;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = listen_address(std::env::args().skip(1), std::env::var("PORT").ok())?;
    let listener =
        TcpListener::bind(address).await.map_err(|source| format!("cannot listen on {address}: {source}"))?;
    // What the tests of log endpoints look for. Who cannot hear it does not matter.
    let _ = writeln!(std::io::stdout(), "listening on {address}");
    // As PID 1 it has no default signal actions: without handlers a SIGTERM would do nothing and
    // every deletion would take the whole grace period.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        served = axum::serve(listener, routes::router()) => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `--listen ADDRESS:PORT` wins over `$PORT`, which wins over 0.0.0.0:8080.
fn listen_address(
    mut arguments: impl Iterator<Item = String>,
    port: Option<String>,
) -> Result<SocketAddr, String> {
    let mut address = SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT));
    if let Some(port) = port {
        address.set_port(port.parse().map_err(|_| format!("PORT is {port:?}, expected 1 to 65535"))?);
    }
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--listen") {
            Some("") => arguments.next().ok_or("--listen needs ADDRESS:PORT")?,
            Some(rest) => rest.trim_start_matches('=').to_owned(),
            None => return Err(format!("unknown argument {argument:?}; usage: --listen ADDRESS:PORT")),
        };
        address = value.parse().map_err(|_| format!("--listen is {value:?}, expected ADDRESS:PORT"))?;
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::listen_address;

    #[test]
    fn listen_wins_over_port_and_port_over_the_default() {
        let none = || std::iter::empty::<String>();
        let listen = || ["--listen".to_owned(), "127.0.0.1:9".to_owned()].into_iter();
        assert_eq!(listen_address(none(), None).unwrap().to_string(), "0.0.0.0:8080");
        assert_eq!(listen_address(none(), Some("81".into())).unwrap().to_string(), "0.0.0.0:81");
        assert_eq!(listen_address(listen(), Some("81".into())).unwrap().to_string(), "127.0.0.1:9");
    }

    #[test]
    fn a_wrong_port_is_named() {
        let error = listen_address(std::iter::empty(), Some("x".into())).unwrap_err();
        assert!(error.contains("\"x\""), "{error}");
    }
}
