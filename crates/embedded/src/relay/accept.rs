//! Accepting connections at one port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection;
use super::connector::Connector;
use super::limits::{Limits, REFUSALS};
use super::machine::Machine;
use super::port::Port;
use super::process::log;
use super::refusal::{Reason, refuse};
use super::silent::Admission;

/// How long nothing is accepted when the kernel has no memory or descriptors for it.
const BREATH: Duration = Duration::from_millis(100);

/// What all ports share.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) machine: Machine,
    pub(super) connector: Connector,
    pub(super) limits: Arc<Limits>,
    /// How long a request waits for its sandbox.
    pub(super) wait: Duration,
    refusals: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new(machine: Machine, connector: Connector, limits: Limits, wait: Duration) -> Self {
        Self {
            machine,
            connector,
            limits: Arc::new(limits),
            wait,
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }
}

/// Accepts until the task is ended.
pub(super) async fn accept(listener: TcpListener, port: Arc<Port>, gate: Arc<Gate>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => admit(client, &port, &gate),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                log(format_args!("{} cannot accept at {}: {error}", port.id, port.address));
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

fn admit(client: TcpStream, port: &Arc<Port>, gate: &Arc<Gate>) {
    let free = port.enter().zip(gate.limits.take_connection());
    let free = free.map(|(entered, taken)| Admission { entered, taken });
    if let Some(admission) = free.or_else(|| port.silent.take_oldest()) {
        let ticket = port.silent.keep(admission);
        let (port, gate) = (Arc::clone(port), Arc::clone(gate));
        tokio::spawn(async move { connection::serve(client, port, &gate, ticket).await });
        return;
    }
    port.refused();
    // When even those who are refused are too many, connections are just closed.
    if let Ok(permit) = Arc::clone(&gate.refusals).try_acquire_owned() {
        tokio::spawn(async move {
            refuse(client, Reason::Busy).await;
            drop(permit);
        });
    }
}

/// Errors that say nothing of the port (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
        || error.raw_os_error() == Some(libc::EPROTO)
}
