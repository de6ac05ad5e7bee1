//! All ports of the machine, and what the server does with them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::accept::{Gate, accept};
use super::events::Events;
use super::port::{Port, Wake};
use super::process::network_namespace;
use super::wire::{Answer, Ask, PAGE, Refusal, RefusalKind};

/// All ports.
#[derive(Debug)]
pub(super) struct Registry {
    ports: Mutex<BTreeMap<String, Open>>,
    gate: Arc<Gate>,
    /// The number of the machine's own network namespace, where no connection may ever lead.
    home: u64,
    pub(super) events: Arc<Events>,
}

#[derive(Debug)]
struct Open {
    port: Arc<Port>,
    accepting: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
        self.port.remove();
    }
}

impl Registry {
    pub(super) fn new(gate: Gate, home: u64) -> Self {
        Self { ports: Mutex::default(), gate: Arc::new(gate), home, events: Arc::default() }
    }

    /// Does what the server asks; everything but greetings and farewells.
    pub(super) async fn answer(&self, ask: Ask, descriptors: Vec<OwnedFd>) -> Result<Answer, Refusal> {
        match ask {
            Ask::Listen { id, address } => self.listen(id, address).await?,
            Ask::Attach { id, agent_port } => self.attach(&id, only(descriptors)?, agent_port)?,
            Ask::Detach { id, why } => self.port(&id)?.detach(why),
            Ask::Fail { id, failure } => self.port(&id)?.fail(failure),
            Ask::Pause { id, since, write } => {
                let wake = Wake { descriptor: only(descriptors)?, bytes: write };
                self.port(&id)?.pause(since, wake);
            }
            Ask::Resume { id } => self.port(&id)?.resume(),
            Ask::Remove { id } => drop(self.ports.lock().remove(&id).ok_or_else(|| unknown(&id))?),
            Ask::List { after } => return Ok(self.list(after.as_deref())),
            Ask::ServeNames { gateway, clients } => self.serve_names(gateway, &clients).await?,
            Ask::Hello { .. } | Ask::Shutdown => return Err(invalid("asked in the wrong place".to_owned())),
        }
        Ok(Answer::Done)
    }

    /// Whether no sandbox has a port.
    pub(super) fn is_empty(&self) -> bool {
        self.ports.lock().is_empty()
    }

    /// Tells a server that came just now what an earlier one may not have heard.
    pub(super) fn want_again(&self) {
        for open in self.ports.lock().values() {
            open.port.want_again();
        }
    }

    async fn listen(&self, id: String, address: SocketAddr) -> Result<(), Refusal> {
        if self.has(&id, address)? {
            return Ok(());
        }
        let taken = self.gate.limits.take_sandbox().ok_or_else(|| Refusal {
            kind: RefusalKind::Full,
            text: format!(
                "its {} descriptors are in use; raise the limit of open files (ulimit -Hn)",
                self.gate.limits.descriptors()
            ),
        })?;
        let opened = self.gate.machine.open(address).await;
        let listener = opened.map_err(|error| refused(&format!("open {address}"), &error))?;
        let port = Arc::new(Port::new(id.clone(), address, Arc::clone(&self.events), taken));
        let task = tokio::spawn(accept(listener, Arc::clone(&port), Arc::clone(&self.gate)));
        let open = Open { port, accepting: task.abort_handle() };
        match self.ports.lock().entry(id) {
            Entry::Vacant(place) => drop(place.insert(open)),
            // Two servers at once: one address each is one too many.
            Entry::Occupied(other) => return Err(invalid(format!("{} was opened meanwhile", other.key()))),
        }
        Ok(())
    }

    async fn serve_names(&self, gateway: Ipv4Addr, clients: &str) -> Result<(), Refusal> {
        let clients = clients.parse().map_err(|why: &str| invalid(why.to_owned()))?;
        let served = self.gate.machine.serve_names(gateway, clients).await;
        // Not told as the port of a sandbox that is taken.
        served.map_err(|why| Refusal { kind: RefusalKind::System, text: why })
    }

    /// Whether the port is open already.
    fn has(&self, id: &str, address: SocketAddr) -> Result<bool, Refusal> {
        match self.ports.lock().get(id) {
            None => Ok(false),
            Some(open) if open.port.address == address => Ok(true),
            Some(open) => {
                let has = open.port.address;
                Err(invalid(format!("sandbox {id} has {has} already, not {address}")))
            }
        }
    }

    fn attach(&self, id: &str, namespace: OwnedFd, agent_port: u16) -> Result<(), Refusal> {
        let port = self.port(id)?;
        let number = network_namespace(&namespace).map_err(|error| refused("use the namespace", &error))?;
        if number == self.home {
            return Err(invalid("the namespace is the machine's own".to_owned()));
        }
        port.attach(namespace, number, agent_port);
        Ok(())
    }

    fn list(&self, after: Option<&str>) -> Answer {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ports = self.ports.lock();
        let mut rest = ports.range::<str, _>((from, Bound::Unbounded)).map(|(_, open)| open.port.listed());
        let page: Vec<_> = rest.by_ref().take(PAGE).collect();
        Answer::Ports { ports: page, more: rest.next().is_some() }
    }

    fn port(&self, id: &str) -> Result<Arc<Port>, Refusal> {
        let ports = self.ports.lock();
        ports.get(id).map(|open| Arc::clone(&open.port)).ok_or_else(|| unknown(id))
    }
}

fn only(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, Refusal> {
    let count = descriptors.len();
    match <[OwnedFd; 1]>::try_from(descriptors) {
        Ok([descriptor]) => Ok(descriptor),
        Err(_) => Err(invalid(format!("one descriptor was expected, not {count}"))),
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal { kind: RefusalKind::Unknown, text: id.to_owned() }
}

fn invalid(text: String) -> Refusal {
    Refusal { kind: RefusalKind::Invalid, text }
}

fn refused(what: &str, error: &io::Error) -> Refusal {
    let kind = match error.kind() {
        io::ErrorKind::AddrInUse => RefusalKind::AddressInUse,
        _ => RefusalKind::System,
    };
    Refusal { kind, text: format!("cannot {what}: {error}") }
}
