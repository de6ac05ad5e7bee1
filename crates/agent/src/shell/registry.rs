//! All shell sessions: how many there may be, which one goes when there are too many.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::session::Session;
use super::surroundings::Surroundings;
use crate::departed::{Departed, Reason};
use crate::http::ApiError;

/// Sessions unless `MAX_SHELL_SESSIONS` says otherwise.
pub(crate) const MAX_SESSIONS: usize = 128;
/// Idle sessions that nobody named are kept up to this number, because their id was returned and may be used again.
const IDLE_AUTOMATIC: usize = 16;
/// An idle session without a name of its own is ended after this long.
pub(crate) const AUTOMATIC_IDLE: Duration = Duration::from_secs(600);

pub(crate) struct Shells {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    departed: Departed,
    pub(crate) max: usize,
    surroundings: Arc<Surroundings>,
}

/// How a new session is to be.
pub(crate) struct NewSession {
    pub(crate) id: Option<String>,
    pub(crate) directory: PathBuf,
    pub(crate) no_change: Option<Duration>,
}

impl Shells {
    pub(crate) fn new(max: usize, surroundings: Arc<Surroundings>) -> Self {
        Self { sessions: Mutex::default(), departed: Departed::default(), max, surroundings }
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Session>, ApiError> {
        let found = self.sessions.lock().get(id).cloned();
        found.ok_or_else(|| self.departed.not_found(id))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// The session of that id as it is, or a new one with its bash started.
    pub(crate) async fn create(&self, new: NewSession) -> Result<Arc<Session>, ApiError> {
        let automatic = new.id.is_none();
        let id = new.id.map_or_else(|| Ok(Uuid::new_v4().to_string()), checked_id)?;
        let (session, evicted) = {
            let mut sessions = self.sessions.lock();
            if let Some(known) = sessions.get(&id) {
                return Ok(Arc::clone(known));
            }
            self.insert(
                &mut sessions,
                Session::new(id, new.directory, new.no_change, automatic, &self.surroundings),
            )?
        };
        self.start(&session, evicted).await?;
        Ok(session)
    }

    /// A new session for a command whose caller named none, and the turn to run it. The turn is taken before anybody
    /// can see the session: it is never idle before its first command, so that many such callers at once do not
    /// evict each other.
    pub(crate) async fn create_for_command(
        &self,
        directory: PathBuf,
    ) -> Result<(Arc<Session>, OwnedSemaphorePermit), ApiError> {
        let session = Session::new(Uuid::new_v4().to_string(), directory, None, true, &self.surroundings);
        let turn = session.take_turn(None).await?;
        let (session, evicted) = {
            let mut sessions = self.sessions.lock();
            self.insert(&mut sessions, session)?
        };
        self.start(&session, evicted).await?;
        Ok((session, turn))
    }

    /// Puts a session in, and takes out the one that has to go for it.
    fn insert(
        &self,
        sessions: &mut HashMap<String, Arc<Session>>,
        session: Arc<Session>,
    ) -> Result<(Arc<Session>, Option<Arc<Session>>), ApiError> {
        let evicted = self.make_room(sessions)?;
        sessions.insert(session.id.clone(), Arc::clone(&session));
        Ok((session, evicted))
    }

    async fn start(&self, session: &Arc<Session>, evicted: Option<Arc<Session>>) -> Result<(), ApiError> {
        if let Some(old) = evicted {
            self.departed.remember(&old.id, old.last_used(), Reason::Room);
            tokio::spawn(async move { old.retire().await });
        }
        if let Err(error) = session.ensure_terminal().await {
            self.sessions.lock().remove(&session.id);
            return Err(error);
        }
        Ok(())
    }

    /// Takes out what has to go for one more session: the session unused for longest, those that nobody named first.
    fn make_room(
        &self,
        sessions: &mut HashMap<String, Arc<Session>>,
    ) -> Result<Option<Arc<Session>>, ApiError> {
        let mut idle: Vec<_> = sessions.values().filter(|session| !session.is_busy()).cloned().collect();
        idle.sort_by_key(|session| (!session.automatic, session.last_used()));
        let automatic = idle.iter().filter(|session| session.automatic).count();
        if sessions.len() < self.max && automatic < IDLE_AUTOMATIC {
            return Ok(None);
        }
        match idle.into_iter().next() {
            Some(oldest) => Ok(sessions.remove(&oldest.id)),
            None => {
                let message = format!("shell session limit reached: {} sessions, all of them busy", self.max);
                Err(ApiError::bad_request(message).with_hint("close a session, or raise MAX_SHELL_SESSIONS"))
            }
        }
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), ApiError> {
        let session = self.get(id)?;
        self.sessions.lock().remove(id);
        session.close().await;
        Ok(())
    }

    pub(crate) async fn remove_all(&self) -> usize {
        let all: Vec<_> = self.sessions.lock().drain().map(|(_, session)| session).collect();
        let count = all.len();
        futures::future::join_all(all.iter().map(|session| session.close())).await;
        count
    }

    /// Ends sessions without a name of their own that nobody has used for a while.
    pub(crate) async fn sweep(&self) {
        let now = SystemTime::now();
        let stale = |session: &Session| {
            let idle = now.duration_since(session.last_used()).unwrap_or_default();
            session.automatic && !session.is_busy() && idle > AUTOMATIC_IDLE
        };
        let old: Vec<_> = self.all().into_iter().filter(|session| stale(session)).collect();
        for session in old {
            self.sessions.lock().remove(&session.id);
            self.departed.remember(&session.id, session.last_used(), Reason::Unused);
            session.retire().await;
        }
    }
}

/// An id goes into URLs, so it is short, printable and without slashes.
pub(crate) fn checked_id(id: String) -> Result<String, ApiError> {
    let good = !id.is_empty() && id.len() <= 128 && id.chars().all(|c| !c.is_control() && c != '/');
    if good {
        Ok(id)
    } else {
        let message = format!("session id {:?} is not 1 to 128 printable bytes without a slash", shown(&id));
        Err(ApiError::invalid("id", message))
    }
}

pub(crate) fn shown(id: &str) -> String {
    id.chars().take(128).collect()
}
