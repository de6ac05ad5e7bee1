//! The relay's side of the conversation with servers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::io::Interest;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::packet::{Packet, PacketSocket, watched};
use super::place::peer;
use super::process::{log, user_namespace};
use super::registry::Registry;
use super::wire::{Answer, Ask, Message, Question, Refusal, RefusalKind, VERSION};

/// Servers at a time: one, one that is just ending, and somebody who looks.
const SERVERS: usize = 8;
/// How long nothing is accepted when the kernel has no memory for it.
const BREATH: Duration = Duration::from_millis(100);

/// What conversations share.
struct Hall {
    registry: Arc<Registry>,
    /// The number of the newest server: it hears the events.
    newest: AtomicU64,
    /// A newer server came.
    replaced: Notify,
    /// How many servers there are that said hello.
    servers: AtomicUsize,
    /// The last of them left.
    left: Notify,
    farewells: mpsc::Sender<Farewell>,
}

/// A server asks the relay to end.
struct Farewell {
    server: Arc<PacketSocket>,
    question: u64,
}

/// Serves servers until one ends the relay, or the last has left and there is no sandbox. Who connects at that very
/// moment sees the end of it, and starts another.
pub(super) async fn serve(socket: OwnedFd, registry: Arc<Registry>) -> io::Result<()> {
    let socket = watched(socket)?;
    let (farewells, mut ending) = mpsc::channel(1);
    let newest = AtomicU64::new(0);
    let (replaced, servers, left) = (Notify::new(), AtomicUsize::new(0), Notify::new());
    let hall = Arc::new(Hall { registry, newest, replaced, servers, left, farewells });
    let places = Arc::new(Semaphore::new(SERVERS));
    for number in 1_u64.. {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = tokio::select! {
            accepted = socket.async_io(Interest::READABLE, |socket| Ok(accept_with(socket, flags)?)) => accepted,
            Some(farewell) = ending.recv() => {
                // Nobody connects to a relay whose end was announced.
                drop(socket);
                return done(&farewell).await;
            }
            () = hall.left.notified() => {
                if hall.servers.load(Ordering::Relaxed) == 0 && hall.registry.is_empty() {
                    return Ok(());
                }
                continue;
            }
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log(format_args!("cannot accept a server: {error}"));
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let ours = peer(&accepted).is_ok_and(|peer| peer.uid == rustix::process::geteuid().as_raw());
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else { continue };
        if ours && let Ok(server) = PacketSocket::new(accepted) {
            let server = Arc::new(server);
            let hall = Arc::clone(&hall);
            tokio::spawn(async move {
                let mut greeted = false;
                converse(&server, number, &hall, &mut greeted).await;
                drop(permit);
                if greeted && hall.servers.fetch_sub(1, Ordering::Relaxed) == 1 {
                    hall.left.notify_one();
                }
            });
        }
    }
    Ok(())
}

/// Answers one server until it ends.
async fn converse(server: &Arc<PacketSocket>, number: u64, hall: &Hall, greeted: &mut bool) {
    loop {
        let newest = hall.newest.load(Ordering::Relaxed) == number;
        tokio::select! {
            received = server.receive() => match received {
                Ok(Some(packet)) => {
                    if respond(server, number, hall, packet, greeted).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return log(format_args!("a server cannot be understood: {error}")),
            },
            () = hall.registry.events.raised(), if newest => {
                if tell(server, hall).await.is_err() { return }
            }
            () = hall.replaced.notified() => {}
        }
    }
}

async fn respond(
    server: &Arc<PacketSocket>,
    number: u64,
    hall: &Hall,
    packet: Packet,
    greeted: &mut bool,
) -> io::Result<()> {
    let question: Question = match serde_json::from_slice(&packet.bytes) {
        Ok(question) => question,
        Err(error) => {
            // A newer server asks what this relay does not know. The number is all it needs.
            let Ok(Numbered { number }) = serde_json::from_slice(&packet.bytes) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let text = format!("this relay (version {VERSION}) does not know it: {error}");
            let answer = Err(Refusal { kind: RefusalKind::Invalid, text });
            return send(server, &Message::Answer { number, answer }).await;
        }
    };
    let answer = match question.ask {
        Ask::Hello { .. } => {
            // Before it hears of it: from then on it relies on this relay.
            if !std::mem::replace(greeted, true) {
                hall.servers.fetch_add(1, Ordering::Relaxed);
            }
            hall.newest.store(number, Ordering::Relaxed);
            hall.replaced.notify_waiters();
            Ok(Answer::Hello { version: VERSION, user_namespace: user_namespace() })
        }
        Ask::Shutdown => {
            let farewell = Farewell { server: Arc::clone(server), question: question.number };
            // Two at once are answered by one end.
            return hall.farewells.send(farewell).await.map_err(io::Error::other);
        }
        other => hall.registry.answer(other, packet.descriptors).await,
    };
    let is_greeting = matches!(answer, Ok(Answer::Hello { .. }));
    send(server, &Message::Answer { number: question.number, answer }).await?;
    if is_greeting {
        hall.registry.want_again();
        tell(server, hall).await?;
    }
    Ok(())
}

async fn done(farewell: &Farewell) -> io::Result<()> {
    send(&farewell.server, &Message::Answer { number: farewell.question, answer: Ok(Answer::Done) }).await
}

#[derive(serde::Deserialize)]
struct Numbered {
    number: u64,
}

async fn tell(server: &PacketSocket, hall: &Hall) -> io::Result<()> {
    for event in hall.registry.events.take() {
        send(server, &Message::Event(event)).await?;
    }
    Ok(())
}

async fn send(server: &PacketSocket, message: &Message) -> io::Result<()> {
    server.send(&serde_json::to_vec(message)?, &[]).await
}
