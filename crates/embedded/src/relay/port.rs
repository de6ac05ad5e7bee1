//! One sandbox as the relay sees it: where its connections lead, whether it sleeps, and what passed.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Moment;
use super::events::Events;
use super::limits::{PER_SANDBOX, Taken, WAITING_PER_SANDBOX};
use super::process::log;
use super::silent::Silent;
use super::wire::{Event, Failure, Listed};

/// Where connections of a sandbox lead.
#[derive(Debug, Clone)]
pub(super) enum Attachment {
    /// Nowhere yet: they wait. Why not any more, when it led somewhere before.
    None(Option<Arc<Failure>>),
    /// To its agent.
    To(Target),
    /// Nowhere any more: it has failed, and callers are told why.
    Failed(Arc<Failure>),
    /// Nowhere any more.
    Removed,
}

/// The agent of a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Which attachment of the sandbox this is.
    pub(super) generation: u64,
    pub(super) namespace: Arc<OwnedFd>,
    /// The number of the namespace.
    pub(super) number: u64,
    pub(super) agent_port: u16,
}

/// How to wake a sandbox.
#[derive(Debug)]
pub(super) struct Wake {
    pub(super) descriptor: OwnedFd,
    pub(super) bytes: Vec<u8>,
}

/// One sandbox.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    attachment: watch::Sender<Attachment>,
    wake: Mutex<Option<Wake>>,
    paused: AtomicBool,
    /// When a byte from a caller was last seen.
    asked: AtomicU64,
    /// When a byte last went from the sandbox to a caller.
    answered: AtomicU64,
    open: AtomicUsize,
    waiting: AtomicUsize,
    pub(super) silent: Silent,
    connections: AtomicU64,
    refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    events: Arc<Events>,
    /// Its share of the descriptors.
    _taken: Taken,
}

impl Port {
    pub(super) fn new(id: String, address: SocketAddr, events: Arc<Events>, taken: Taken) -> Self {
        let now = Moment::now().0;
        Self {
            id,
            address,
            attachment: watch::Sender::new(Attachment::None(None)),
            wake: Mutex::new(None),
            paused: AtomicBool::new(false),
            asked: AtomicU64::new(now),
            answered: AtomicU64::new(now),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            silent: Silent::default(),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            events,
            _taken: taken,
        }
    }

    pub(super) fn follow(&self) -> watch::Receiver<Attachment> {
        self.attachment.subscribe()
    }

    /// Leads connections to an agent. Nothing changes when they lead there already.
    pub(super) fn attach(&self, namespace: OwnedFd, number: u64, agent_port: u16) {
        self.attachment.send_if_modified(|attachment| {
            let generation = match attachment {
                Attachment::To(target) if target.number == number && target.agent_port == agent_port => {
                    return false;
                }
                Attachment::To(target) => target.generation + 1,
                _ => Moment::now().0,
            };
            *attachment =
                Attachment::To(Target { generation, namespace: Arc::new(namespace), number, agent_port });
            true
        });
        self.events.withdraw(&Event::Wanted { id: self.id.clone() });
    }

    pub(super) fn detach(&self, why: Option<Failure>) {
        self.resume();
        self.attachment.send_if_modified(|attachment| {
            let attached = matches!(attachment, Attachment::To(_));
            *attachment = Attachment::None(why.map(Arc::new));
            attached
        });
    }

    /// Ends its connections, and has those who wait and those to come told why.
    pub(super) fn fail(&self, failure: Failure) {
        self.resume();
        self.attachment.send_if_modified(|attachment| {
            if matches!(attachment, Attachment::Failed(known) if **known == failure) {
                return false;
            }
            *attachment = Attachment::Failed(Arc::new(failure));
            true
        });
        self.events.withdraw(&Event::Wanted { id: self.id.clone() });
    }

    pub(super) fn remove(&self) {
        self.resume();
        self.attachment.send_replace(Attachment::Removed);
        self.events.withdraw(&Event::Wanted { id: self.id.clone() });
        self.events.withdraw(&Event::Woken { id: self.id.clone() });
    }

    /// Lets the next byte of a caller wake the sandbox; one that came since it was frozen does so now.
    pub(super) fn pause(&self, since: u64, wake: Wake) {
        *self.wake.lock() = Some(wake);
        // In this order, and the reverse in `asked`: a byte that comes now is seen by one of the two.
        self.paused.store(true, Ordering::SeqCst);
        if self.asked.load(Ordering::SeqCst) >= since {
            self.wake();
        }
    }

    pub(super) fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        *self.wake.lock() = None;
    }

    /// A byte of a caller is about to go to the sandbox.
    pub(super) fn asked(&self) {
        self.asked.store(Moment::now().0, Ordering::SeqCst);
        if self.paused.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        let Some(wake) = self.wake.lock().take() else { return };
        match rustix::io::write(&wake.descriptor, &wake.bytes) {
            Ok(_) => {
                self.paused.store(false, Ordering::SeqCst);
                self.events.raise(Event::Woken { id: self.id.clone() });
            }
            Err(errno) => {
                log(format_args!("{} cannot be thawed: {errno}", self.id));
                // The next byte tries again, and the server hears of it.
                *self.wake.lock() = Some(wake);
                self.want();
            }
        }
    }

    pub(super) fn passed_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn passed_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.answered.store(Moment::now().0, Ordering::Relaxed);
    }

    /// Says that a connection waits and needs the server.
    pub(super) fn want(&self) {
        self.events.raise(Event::Wanted { id: self.id.clone() });
    }

    /// Says it again to a server that may not have heard it.
    pub(super) fn want_again(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.want();
        }
    }

    /// Counts a connection in; `None` when there are too many.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Entered> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        count(self, |port| &port.open, PER_SANDBOX)
    }

    /// Counts a waiting connection in; `None` when there are too many.
    pub(super) fn wait(self: &Arc<Self>) -> Option<Entered> {
        count(self, |port| &port.waiting, WAITING_PER_SANDBOX)
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) -> Listed {
        let namespace = match &*self.attachment.borrow() {
            Attachment::To(target) => Some(target.number),
            _ => None,
        };
        let last = self.asked.load(Ordering::Relaxed).max(self.answered.load(Ordering::Relaxed));
        Listed {
            id: self.id.clone(),
            address: self.address,
            namespace,
            paused: self.paused.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed) as u64,
            connections: self.connections.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed) as u64,
            refused: self.refused.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            idle_ms: Moment::now().0.saturating_sub(last) / 1_000_000,
        }
    }
}

/// One that is counted, until dropped.
#[derive(Debug)]
pub(super) struct Entered {
    port: Arc<Port>,
    counter: fn(&Port) -> &AtomicUsize,
}

fn count(port: &Arc<Port>, counter: fn(&Port) -> &AtomicUsize, most: usize) -> Option<Entered> {
    let within = |now: usize| (now < most).then_some(now + 1);
    counter(port).fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
    Some(Entered { port: Arc::clone(port), counter })
}

impl Drop for Entered {
    fn drop(&mut self) {
        (self.counter)(&self.port).fetch_sub(1, Ordering::Relaxed);
    }
}
