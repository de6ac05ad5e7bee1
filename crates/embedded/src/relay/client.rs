//! The server's side: a handle to the relay.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stockade_core::id::SandboxId;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::packet::PacketSocket;
use super::start::connect_or_start;
use super::wire::{Answer, Ask, Event, Failure, Listed, Message, Question, Refusal, RefusalKind, VERSION};
use super::{Moment, RelayError, RelayOptions};
use crate::settings::Subnet;

/// How long one answer may take. Everything the relay is asked is done in memory.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Events that wait for the backend. More wait without a place of their own, one of each kind per sandbox.
const EVENTS: usize = 64;

/// Something happened at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEvent {
    /// A connection waits for a sandbox that is not attached.
    Wanted(SandboxId),
    /// A connection came for a paused sandbox, and the relay thawed it.
    Woken(SandboxId),
    /// The relay ended; no event follows. Connect again, and tell the next one everything.
    Ended,
}

/// How the relay wakes a paused sandbox.
#[derive(Debug)]
pub struct Thaw {
    /// What is written to.
    pub descriptor: OwnedFd,
    /// What is written.
    pub bytes: Vec<u8>,
}

/// Who waits for an answer.
type Asked = oneshot::Sender<Result<Answer, Refusal>>;

/// A handle to the relay. Copies talk to the same one.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    /// The last handle ends the connection with it.
    _reading: Arc<Reading>,
}

/// The task that reads what the relay says.
#[derive(Debug)]
struct Reading(tokio::task::AbortHandle);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Shared {
    socket: PacketSocket,
    pid: i32,
    next: AtomicU64,
    /// Who waits for which answer; `None` when no answer will come any more.
    waiting: Mutex<Option<HashMap<u64, Asked>>>,
    events: Mutex<BTreeSet<Event>>,
    happened: Notify,
    ended: watch::Sender<bool>,
}

impl Relay {
    /// Finds the relay of the state directory or starts it. A relay that speaks another version is ended and
    /// another one started; its ports are closed meanwhile.
    ///
    /// # Errors
    /// When there is none and none can be started, or it is not ours.
    pub async fn connect_or_start(
        options: RelayOptions,
    ) -> Result<(Self, mpsc::Receiver<RelayEvent>), RelayError> {
        let (relay, events, version) = match Self::connect(&options).await {
            // It was just ending, because nobody had needed it.
            Err(RelayError::Ended) => Self::connect(&options).await?,
            other => other?,
        };
        if version == VERSION {
            return Ok((relay, events));
        }
        tracing::warn!(found = version, ours = VERSION, "the relay is of another version: starting another");
        relay.shutdown().await?;
        let (relay, events, version) = Self::connect(&options).await?;
        if version == VERSION { Ok((relay, events)) } else { Err(RelayError::Nonsense) }
    }

    async fn connect(options: &RelayOptions) -> Result<(Self, mpsc::Receiver<RelayEvent>, u32), RelayError> {
        let (socket, pid) = connect_or_start(options).await?;
        let shared = Arc::new(Shared {
            socket: PacketSocket::new(socket).map_err(RelayError::Socket)?,
            pid,
            next: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            events: Mutex::new(BTreeSet::new()),
            happened: Notify::new(),
            ended: watch::Sender::new(false),
        });
        let (sender, receiver) = mpsc::channel(EVENTS);
        let reading = tokio::spawn(read(Arc::clone(&shared)));
        let life = Arc::new(Reading(reading.abort_handle()));
        tokio::spawn(pass_on(Arc::clone(&shared), reading, sender));
        let relay = Self { shared, _reading: life };
        let Answer::Hello { version, user_namespace } =
            relay.ask(Ask::Hello { version: VERSION }, &[]).await?
        else {
            return Err(RelayError::Nonsense);
        };
        let ours = super::process::user_namespace();
        if user_namespace != ours {
            return Err(RelayError::OtherUsers { pid, theirs: user_namespace, ours });
        }
        Ok((relay, receiver, version))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.shared.pid
    }

    /// Opens the sandbox's port: it accepts connections when this returns. Asked again, it changes nothing.
    ///
    /// # Errors
    /// When the port is taken, or the sandbox has another one already.
    pub async fn listen(&self, id: &SandboxId, address: SocketAddr) -> Result<(), RelayError> {
        self.told(Ask::Listen { id: id.to_string(), address }, &[]).await.map_err(|error| match error {
            RelayError::AddressInUse { .. } => RelayError::AddressInUse { id: id.to_string(), address },
            other => other,
        })
    }

    /// Leads connections to the agent in a network namespace. Connections to another namespace or port end;
    /// asked again, it changes nothing.
    ///
    /// # Errors
    /// When the sandbox has no port here, or the descriptor is not a network namespace of a sandbox.
    pub async fn attach(&self, id: &SandboxId, netns: OwnedFd, agent_port: u16) -> Result<(), RelayError> {
        self.told(Ask::Attach { id: id.to_string(), agent_port }, &[netns.as_fd()]).await
    }

    /// Ends the connections to the sandbox and lets new ones wait. Callers that wait for an answer are told why, where
    /// that is known. The relay lets go of its namespace.
    ///
    /// # Errors
    /// When the sandbox has no port here.
    pub async fn detach(&self, id: &SandboxId, why: Option<Failure>) -> Result<(), RelayError> {
        self.told(Ask::Detach { id: id.to_string(), why }, &[]).await
    }

    /// Ends the connections to a sandbox that is not started again. Those who wait for it, and those who come, are
    /// told why at once.
    ///
    /// # Errors
    /// When the sandbox has no port here.
    pub async fn fail(&self, id: &SandboxId, failure: Failure) -> Result<(), RelayError> {
        self.told(Ask::Fail { id: id.to_string(), failure }, &[]).await
    }

    /// Lets the next byte of a caller wake the sandbox. Take `since` before freezing it and call this
    /// afterwards: what came between the two wakes it at once.
    ///
    /// # Errors
    /// When the sandbox has no port here.
    pub async fn pause(&self, id: &SandboxId, since: Moment, thaw: Thaw) -> Result<(), RelayError> {
        let ask = Ask::Pause { id: id.to_string(), since: since.0, write: thaw.bytes };
        self.told(ask, &[thaw.descriptor.as_fd()]).await
    }

    /// Says that the sandbox runs again without the relay's doing.
    ///
    /// # Errors
    /// When the sandbox has no port here.
    pub async fn resume(&self, id: &SandboxId) -> Result<(), RelayError> {
        self.told(Ask::Resume { id: id.to_string() }, &[]).await
    }

    /// Closes the sandbox's port and all its connections. A sandbox without a port is well removed.
    ///
    /// # Errors
    /// When the relay does not answer.
    pub async fn remove(&self, id: &SandboxId) -> Result<(), RelayError> {
        match self.told(Ask::Remove { id: id.to_string() }, &[]).await {
            Err(RelayError::Unknown(_)) => Ok(()),
            other => other,
        }
    }

    /// Answers the name queries of sandboxes in open networks, also while no server runs. Asked again, it changes
    /// nothing; asked for another gateway, it moves there. Needs [`RelayOptions::low_ports`].
    ///
    /// # Errors
    /// When the gateway's port is taken, or the relay may not listen there.
    pub async fn serve_names(&self, gateway: Ipv4Addr, clients: Subnet) -> Result<(), RelayError> {
        self.told(Ask::ServeNames { gateway, clients: clients.to_string() }, &[]).await
    }

    /// All ports with their counts, by id.
    ///
    /// # Errors
    /// When the relay does not answer.
    pub async fn list(&self) -> Result<Vec<Listed>, RelayError> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map(|last| last.id.clone());
            let Answer::Ports { ports, more } = self.ask(Ask::List { after }, &[]).await? else {
                return Err(RelayError::Nonsense);
            };
            let done = !more || ports.is_empty();
            all.extend(ports);
            if done {
                return Ok(all);
            }
        }
    }

    /// Ends the relay with all ports and connections. Its process is gone, or just going, when this returns.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn shutdown(&self) -> Result<(), RelayError> {
        self.told(Ask::Shutdown, &[]).await?;
        let mut ended = self.shared.ended.subscribe();
        let silent = RelayError::Silent { pid: Some(self.shared.pid), seconds: ANSWER_TIME.as_secs() };
        let waited = tokio::time::timeout(ANSWER_TIME, ended.wait_for(|ended| *ended)).await;
        waited.map_err(|_| silent)?.map(drop).map_err(|_| RelayError::Ended)
    }

    async fn told(&self, ask: Ask, descriptors: &[BorrowedFd<'_>]) -> Result<(), RelayError> {
        match self.ask(ask, descriptors).await? {
            Answer::Done => Ok(()),
            _ => Err(RelayError::Nonsense),
        }
    }

    async fn ask(&self, ask: Ask, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, RelayError> {
        let shared = &self.shared;
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let question = serde_json::to_vec(&Question { number, ask }).map_err(|_| RelayError::Nonsense)?;
        let (sender, answer) = oneshot::channel();
        match shared.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(number, sender),
            None => return Err(RelayError::Ended),
        };
        let exchange = async {
            shared.socket.send(&question, descriptors).await.map_err(|_| RelayError::Ended)?;
            answer.await.map_err(|_| RelayError::Ended)
        };
        let answered = tokio::time::timeout(ANSWER_TIME, exchange).await;
        if let Some(waiting) = shared.waiting.lock().as_mut() {
            waiting.remove(&number);
        }
        let silent = RelayError::Silent { pid: Some(shared.pid), seconds: ANSWER_TIME.as_secs() };
        answered.map_err(|_| silent)??.map_err(refused)
    }
}

fn refused(refusal: Refusal) -> RelayError {
    match refusal.kind {
        // Whoever asked fills it in.
        RefusalKind::AddressInUse => {
            RelayError::AddressInUse { id: String::new(), address: SocketAddr::from(([0, 0, 0, 0], 0)) }
        }
        RefusalKind::Unknown => RelayError::Unknown(refusal.text),
        RefusalKind::Full => RelayError::Full(refusal.text),
        RefusalKind::Invalid | RefusalKind::System => RelayError::Refused(refusal.text),
    }
}

/// Reads what the relay says until it ends.
async fn read(shared: Arc<Shared>) {
    while let Ok(Some(packet)) = shared.socket.receive().await {
        match serde_json::from_slice(&packet.bytes) {
            Ok(Message::Answer { number, answer }) => {
                let asked = shared.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
                if let Some(asked) = asked {
                    // Who asked may have stopped waiting.
                    let _ = asked.send(answer);
                }
            }
            Ok(Message::Event(event)) => {
                shared.events.lock().insert(event);
                shared.happened.notify_one();
            }
            Err(error) => tracing::warn!(%error, "the relay said something that is no message"),
        }
    }
    // Whoever waits for an answer hears that none will come.
    *shared.waiting.lock() = None;
    shared.ended.send_replace(true);
}

/// Passes events on to the backend, apart from reading: a backend that asks the relay something while events
/// wait gets its answer.
async fn pass_on(
    shared: Arc<Shared>,
    mut reading: tokio::task::JoinHandle<()>,
    sender: mpsc::Sender<RelayEvent>,
) {
    let mut ended = false;
    while !ended {
        tokio::select! {
            () = shared.happened.notified() => {}
            _ = &mut reading => ended = true,
        }
        let events = std::mem::take(&mut *shared.events.lock());
        for event in events {
            if let Some(event) = known(event)
                && sender.send(event).await.is_err()
            {
                return;
            }
        }
    }
    // A backend that has gone needs no event.
    let _ = sender.send(RelayEvent::Ended).await;
}

fn known(event: Event) -> Option<RelayEvent> {
    match event {
        Event::Wanted { id } => Some(RelayEvent::Wanted(SandboxId::new(&id).ok()?)),
        Event::Woken { id } => Some(RelayEvent::Woken(SandboxId::new(&id).ok()?)),
    }
}
