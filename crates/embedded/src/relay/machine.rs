//! Sockets of the machine: the ports of sandboxes, and the forwarder of their name queries.
//!
//! They are made by a thread that never leaves the machine's network namespace, and makes none for sandboxes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::network::dns::{DnsOptions, DnsSockets, serve};
use crate::settings::Subnet;

/// Orders that wait for the thread.
const QUEUE: usize = 64;
/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// A handle to the thread.
#[derive(Debug)]
pub(super) struct Machine {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Open { address: SocketAddr, opened: oneshot::Sender<io::Result<TcpListener>> },
    ServeNames { gateway: Ipv4Addr, clients: Subnet, served: oneshot::Sender<Result<(), String>> },
}

impl Machine {
    /// Starts the thread, where the calling thread stands now.
    pub(super) fn start() -> io::Result<Self> {
        let (orders, received) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("relay-machine".to_owned())
            .spawn(move || runtime.block_on(work(received)))?;
        Ok(Self { orders })
    }

    /// Opens a port.
    pub(super) async fn open(&self, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let ended = || io::Error::other("the relay's machine thread ended");
        let (opened, receive) = oneshot::channel();
        self.orders.send(Order::Open { address, opened }).await.map_err(|_| ended())?;
        tokio::net::TcpListener::from_std(receive.await.map_err(|_| ended())??)
    }

    /// Answers the name queries of sandboxes at their gateway; the error is what the server is told.
    pub(super) async fn serve_names(&self, gateway: Ipv4Addr, clients: Subnet) -> Result<(), String> {
        let ended = || "the relay's machine thread ended".to_owned();
        let (served, receive) = oneshot::channel();
        self.orders.send(Order::ServeNames { gateway, clients, served }).await.map_err(|_| ended())?;
        receive.await.map_err(|_| ended())?
    }
}

async fn work(mut orders: mpsc::Receiver<Order>) {
    let mut names = None;
    while let Some(order) = orders.recv().await {
        // Who asked may have stopped waiting.
        match order {
            Order::Open { address, opened } => drop(opened.send(open(address))),
            Order::ServeNames { gateway, clients, served } => {
                drop(served.send(serve_names(&mut names, gateway, clients).await));
            }
        }
    }
}

/// The forwarder that runs.
struct Names {
    gateway: Ipv4Addr,
    clients: Subnet,
    task: JoinHandle<()>,
}

async fn serve_names(names: &mut Option<Names>, gateway: Ipv4Addr, clients: Subnet) -> Result<(), String> {
    if let Some(names) = names.as_ref()
        && (names.gateway, names.clients) == (gateway, clients)
        && !names.task.is_finished()
    {
        return Ok(());
    }
    if let Some(names) = names.take() {
        names.task.abort();
        // Its sockets are closed when it has ended, which an abort makes it do.
        let _ = names.task.await;
    }
    let sockets = DnsSockets::open(gateway).await;
    let sockets = sockets.map_err(|error| format!("{error}: {}", error.source))?;
    let task = tokio::spawn(serve(sockets, DnsOptions::new(clients), std::future::pending()));
    *names = Some(Names { gateway, clients, task });
    Ok(())
}

/// Connections of an earlier relay that are still ending do not keep the port.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}
