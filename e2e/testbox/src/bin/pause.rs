//! The process that holds a Pod's namespaces open, and the one that holds a test cluster's.
//!
//! It does nothing until SIGTERM or SIGINT and reaps what it inherits: it is PID 1, and a zombie
//! nobody waits for would keep its process id for as long as the Pod lives.

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = signal(SignalKind::child())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = child.recv() => reap(),
        }
    }
}

/// One SIGCHLD may stand for many children, so it waits until nobody is left to wait for.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}
