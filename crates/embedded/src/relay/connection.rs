//! One connection of a caller, from its first byte to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Moment;
use super::accept::Gate;
use super::connector::Connector;
use super::copy::{copy, end};
use super::exchange::Exchange;
use super::port::{Attachment, Port, Target};
use super::refusal::{Reason, refuse, refuse_passed};
use super::silent::Ticket;

/// How long a caller may be connected without having said anything.
const FIRST_BYTE: Duration = Duration::from_secs(120);
/// How long one attempt to connect to the agent may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Time before the first attempt after a refused one; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// A connection on which nothing went either way for so long is given up.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long a caller may leave a connection open whose other side has ended.
const AFTER_END: Duration = Duration::from_secs(60);
/// How long the news of why a sandbox ended may take longer than its end.
const NEWS: Duration = Duration::from_secs(3);
/// Callers that vanished are noticed after this long without a byte, and a few probes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Why there is no connection to the agent.
enum Unreachable {
    /// The caller is told.
    Refused(Reason),
    /// The sandbox is gone.
    Removed,
}

/// Serves one connection.
pub(super) async fn serve(client: TcpStream, port: Arc<Port>, gate: &Gate, ticket: Ticket) {
    let speaks = configure(&client).is_ok() && says_something(&client, &ticket).await;
    let admission = port.silent.take(&ticket);
    if !speaks {
        return;
    }
    let Some(admission) = admission else {
        // Its place was given away in the moment it began to speak.
        port.refused();
        return refuse(client, Reason::Busy).await;
    };
    let mut attachment = port.follow();
    match reach(&port, &mut attachment, gate).await {
        Ok((upstream, generation)) => {
            let exchange = Exchange::default();
            let passed = tokio::select! {
                passed = pass(&client, &upstream, &port, &exchange) => passed,
                () = ended(&mut attachment, generation) => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if passed.is_err() {
                abort(&upstream);
                drop(upstream);
                broken(client, &exchange, &mut attachment, generation).await;
            }
        }
        Err(Unreachable::Refused(reason)) => {
            port.refused();
            refuse(client, reason).await;
        }
        Err(Unreachable::Removed) => refuse(client, Reason::Deleted).await,
    }
    drop((admission.entered, admission.taken));
}

/// A connection that cannot go on: whoever waits for an answer is told why, and others see it break off.
async fn broken(
    client: TcpStream,
    exchange: &Exchange,
    attachment: &mut watch::Receiver<Attachment>,
    generation: u64,
) {
    if exchange.is_open() {
        // The connection may break before the server has seen why.
        let _ = timeout(NEWS, ended(attachment, generation)).await;
        let reason = match &*attachment.borrow() {
            Attachment::Removed => Some(Reason::Deleted),
            Attachment::Failed(failure) => Some(Reason::Failed(Arc::clone(failure))),
            Attachment::None(Some(why)) => Some(Reason::Stopped(Arc::clone(why))),
            Attachment::None(None) | Attachment::To(_) => None,
        };
        if let Some(reason) = reason {
            return refuse_passed(&client, reason).await;
        }
    }
    abort(&client);
}

fn configure(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(client, KEEP_ALIVE / 4)?;
    sockopt::set_tcp_keepcnt(client, 4)?;
    Ok(())
}

/// Whether the caller says anything. A connection that was only opened wakes nothing and starts nothing, and gives way
/// to others.
async fn says_something(client: &TcpStream, ticket: &Ticket) -> bool {
    let mut byte = [0];
    tokio::select! {
        seen = timeout(FIRST_BYTE, client.peek(&mut byte)) => matches!(seen, Ok(Ok(1))),
        () = ticket.gives_way.notified() => false,
    }
}

/// Connects to the agent, waiting for it if need be.
async fn reach(
    port: &Arc<Port>,
    attachment: &mut watch::Receiver<Attachment>,
    gate: &Gate,
) -> Result<(TcpStream, u64), Unreachable> {
    let deadline = Instant::now() + gate.wait;
    let mut waiting = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let now = attachment.borrow_and_update().clone();
        let reason = match now {
            Attachment::Removed => return Err(Unreachable::Removed),
            Attachment::To(target) => {
                port.asked();
                if let Some(upstream) = attempt(&gate.connector, &target, deadline).await {
                    return Ok((upstream, target.generation));
                }
                Reason::NotAccepting
            }
            Attachment::Failed(failure) => return Err(Unreachable::Refused(Reason::Failed(failure))),
            Attachment::None(_) => Reason::NotStarted,
        };
        if waiting.is_none() {
            waiting = Some(port.wait().ok_or(Unreachable::Refused(Reason::Busy))?);
        }
        let again = match reason {
            Reason::NotAccepting => pause,
            _ => {
                port.want();
                gate.wait
            }
        };
        pause = (pause * 2).min(LONGEST_PAUSE);
        let changed = async {
            tokio::select! {
                changed = attachment.changed() => changed.is_ok(),
                () = sleep(again) => true,
            }
        };
        match timeout_at(deadline, changed).await {
            Ok(true) => {}
            Ok(false) => return Err(Unreachable::Removed),
            Err(_) => return Err(Unreachable::Refused(reason)),
        }
    }
}

async fn attempt(connector: &Connector, target: &Target, deadline: Instant) -> Option<TcpStream> {
    let deadline = deadline.min(Instant::now() + CONNECT);
    timeout_at(deadline, connector.connect(target)).await.ok()?.ok()
}

/// Until the sandbox is not the one that was connected to any more.
async fn ended(attachment: &mut watch::Receiver<Attachment>, generation: u64) {
    // When the port is gone, so is the sandbox.
    let _ = attachment
        .wait_for(|now| !matches!(now, Attachment::To(target) if target.generation == generation))
        .await;
}

/// Passes bytes both ways until both sides have ended.
async fn pass(client: &TcpStream, upstream: &TcpStream, port: &Port, exchange: &Exchange) -> io::Result<()> {
    let last = AtomicU64::new(Moment::now().0);
    let to_agent = copy(
        client,
        upstream,
        |_| {
            port.asked();
            exchange.asked();
        },
        |bytes| {
            last.store(Moment::now().0, Ordering::Relaxed);
            port.passed_in(bytes);
        },
    );
    let to_caller = copy(
        upstream,
        client,
        |bytes| exchange.answered(bytes),
        |bytes| {
            last.store(Moment::now().0, Ordering::Relaxed);
            port.passed_out(bytes);
        },
    );
    let to_agent = async {
        to_agent.await?;
        end(upstream)
    };
    let to_caller = async {
        to_caller.await?;
        // It ended before it answered: there may be more to say of that than an end.
        if exchange.is_open() { Err(io::ErrorKind::UnexpectedEof.into()) } else { end(client) }
    };
    let both = async {
        tokio::pin!(to_agent, to_caller);
        tokio::select! {
            sent = &mut to_agent => {
                sent?;
                to_caller.await
            }
            answered = &mut to_caller => {
                answered?;
                timeout(AFTER_END, to_agent).await.map_err(|_| io::ErrorKind::TimedOut)?
            }
        }
    };
    tokio::select! {
        passed = both => passed,
        () = idle(&last) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Until nothing has happened for [`IDLE`].
async fn idle(last: &AtomicU64) {
    let mut left = IDLE;
    while !left.is_zero() {
        sleep(left).await;
        let idle = Moment::now().0.saturating_sub(last.load(Ordering::Relaxed));
        left = IDLE.saturating_sub(Duration::from_nanos(idle));
    }
}

/// Closes the connection so that the other side does not take what it has for all there is.
fn abort(stream: &TcpStream) {
    // A connection that is closed already needs nothing.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
