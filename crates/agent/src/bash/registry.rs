//! The sessions of `/v1/bash`: a working directory and the commands run in it.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::process::Signal;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::command::{BashCommand, BashOrder, CommandStatus};
use crate::clock;
use crate::departed::{Departed, Reason};
use crate::http::ApiError;
use crate::process::Family;
use crate::shell::Surroundings;
use crate::shell::registry::checked_id;

/// Sessions, the ones made by an `exec` without a session included.
pub(crate) const MAX_SESSIONS: usize = 128;
/// Commands whose output a session keeps.
const KEPT: usize = 8;
/// Commands running at once in one session.
const RUNNING: usize = 16;
/// Idle sessions that nobody named.
const IDLE_AUTOMATIC: usize = 16;

pub(crate) struct BashSession {
    pub(crate) id: String,
    automatic: bool,
    created: SystemTime,
    snapshot: Option<PathBuf>,
    core: Mutex<Core>,
}

struct Core {
    directory: PathBuf,
    last_used: SystemTime,
    commands: VecDeque<Arc<BashCommand>>,
    /// Commands, ended or not, of which something still runs.
    families: Vec<Family>,
    count: u64,
}

/// `BashSessionInfo` of the API.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    session_id: String,
    /// Always `ready`: closed sessions are gone.
    #[schema(value_type = String)]
    status: &'static str,
    working_dir: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    last_used_at: String,
    current_command: Option<String>,
    command_count: u64,
}

impl BashSession {
    pub(crate) fn info(&self) -> SessionInfo {
        let core = self.core.lock();
        let running = core.commands.iter().rev().find(|command| command.status() == CommandStatus::Running);
        SessionInfo {
            session_id: self.id.clone(),
            status: "ready",
            working_dir: core.directory.to_string_lossy().into_owned(),
            created_at: clock::iso(self.created),
            last_used_at: clock::iso(core.last_used),
            current_command: running.map(|command| command.text.clone()),
            command_count: core.count,
        }
    }

    fn is_busy(&self) -> bool {
        self.core.lock().commands.iter().any(|command| command.status() == CommandStatus::Running)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.core.lock().directory.clone()
    }

    pub(crate) fn set_directory(&self, directory: PathBuf) {
        self.core.lock().directory = directory;
    }

    pub(crate) fn snapshot(&self) -> Option<PathBuf> {
        self.snapshot.clone()
    }

    /// The command of that id, or the newest.
    pub(crate) fn command(&self, id: Option<&str>) -> Option<Arc<BashCommand>> {
        let core = self.core.lock();
        match id {
            Some(id) => core.commands.iter().find(|command| command.id == id).cloned(),
            None => core.commands.back().cloned(),
        }
    }

    /// The newest command that runs, or the newest at all.
    pub(crate) fn running_or_last(&self) -> Option<Arc<BashCommand>> {
        let core = self.core.lock();
        let running = core.commands.iter().rev().find(|command| command.status() == CommandStatus::Running);
        running.or(core.commands.back()).cloned()
    }

    pub(crate) fn running(&self) -> Vec<Arc<BashCommand>> {
        let core = self.core.lock();
        core.commands.iter().filter(|command| command.status() == CommandStatus::Running).cloned().collect()
    }

    pub(crate) async fn run(
        &self,
        order: BashOrder,
        surroundings: &Arc<Surroundings>,
    ) -> Result<Arc<BashCommand>, ApiError> {
        if self.running().len() >= RUNNING {
            let message = format!("session {} already runs {RUNNING} commands", self.id);
            return Err(
                ApiError::bad_request(message).with_hint("wait for one, kill it, or use another session")
            );
        }
        let started = BashCommand::start(order, surroundings).await;
        let command = started.map_err(|error| surroundings.cannot_start_bash(&error))?;
        let mut core = self.core.lock();
        core.last_used = SystemTime::now();
        core.count += 1;
        core.families.retain(|family| !family.is_gone());
        core.families.push(command.family().clone());
        core.commands.push_back(Arc::clone(&command));
        if core.commands.len() > KEPT {
            let finished = core.commands.iter().position(|old| old.status() != CommandStatus::Running);
            if let Some(old) = finished.and_then(|at| core.commands.remove(at)) {
                old.release_output();
            }
        }
        Ok(command)
    }

    /// Ends every process of the session, those that commands left running included.
    pub(crate) async fn close(&self, surroundings: &Surroundings) {
        for command in self.running() {
            command.signal(Signal::KILL);
        }
        let families = self.core.lock().families.clone();
        let end_all = move || families.iter().map(Family::end).sum::<usize>();
        let _ = surroundings.pool.run(end_all).await;
    }
}

pub(crate) struct Bashes {
    sessions: Mutex<HashMap<String, Arc<BashSession>>>,
    departed: Departed,
    pub(crate) surroundings: Arc<Surroundings>,
}

impl Bashes {
    pub(crate) fn new(surroundings: Arc<Surroundings>) -> Self {
        Self { sessions: Mutex::default(), departed: Departed::default(), surroundings }
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<BashSession>, ApiError> {
        let found = self.sessions.lock().get(id).cloned();
        found.ok_or_else(|| self.departed.not_found(id))
    }

    pub(crate) fn all(&self) -> Vec<Arc<BashSession>> {
        let mut all: Vec<_> = self.sessions.lock().values().cloned().collect();
        all.sort_by_key(|session| session.created);
        all
    }

    /// The session of that id as it is, or a new one.
    pub(crate) fn create(
        &self,
        id: Option<String>,
        directory: PathBuf,
        snapshot: Option<PathBuf>,
    ) -> Result<Arc<BashSession>, ApiError> {
        let automatic = id.is_none();
        let id = match id {
            Some(id) => checked_id(id)?,
            None => Uuid::new_v4().to_string(),
        };
        let mut sessions = self.sessions.lock();
        if let Some(known) = sessions.get(&id) {
            return Ok(Arc::clone(known));
        }
        if let Some(old) = room_for_one(&sessions)? {
            sessions.remove(&old.id);
            self.departed.remember(&old.id, old.core.lock().last_used, Reason::Room);
            // Its commands have ended, and what they left running is left running.
        }
        let now = SystemTime::now();
        let core = Mutex::new(Core {
            directory,
            last_used: now,
            commands: VecDeque::new(),
            families: Vec::new(),
            count: 0,
        });
        let session = Arc::new(BashSession { id: id.clone(), automatic, created: now, snapshot, core });
        sessions.insert(id, Arc::clone(&session));
        Ok(session)
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), ApiError> {
        let session = self.get(id)?;
        self.sessions.lock().remove(id);
        session.close(&self.surroundings).await;
        Ok(())
    }

    pub(crate) async fn remove_all(&self) {
        let all: Vec<_> = self.sessions.lock().drain().map(|(_, session)| session).collect();
        for session in all {
            session.close(&self.surroundings).await;
        }
    }
}

/// The session that has to go for one more: idle, unnamed first, unused for longest.
fn room_for_one(sessions: &HashMap<String, Arc<BashSession>>) -> Result<Option<Arc<BashSession>>, ApiError> {
    let mut idle: Vec<_> = sessions.values().filter(|session| !session.is_busy()).collect();
    idle.sort_by_key(|session| (!session.automatic, session.core.lock().last_used));
    let automatic = idle.iter().filter(|session| session.automatic).count();
    if sessions.len() < MAX_SESSIONS && automatic < IDLE_AUTOMATIC {
        return Ok(None);
    }
    match idle.first() {
        Some(oldest) => Ok(Some(Arc::clone(oldest))),
        None => {
            let message = format!("bash session limit reached: {MAX_SESSIONS} sessions, all of them busy");
            Err(ApiError::bad_request(message).with_hint("close a session"))
        }
    }
}
