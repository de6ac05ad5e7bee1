//! The sessions of code execution: which interpreters are kept, for how long, and what became of those that are not.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::ended::{Ended, Why};
use super::interpreter::{Answerer, Interpreter, Language, Outcome};
use crate::app::App;
use crate::context::find_program;
use crate::http::ApiError;
use crate::shell::registry::{checked_id, shown};

/// Interpreters kept at once, of both languages; and as many that run code whose state is not kept.
pub(crate) const MAX_SESSIONS: usize = 16;
/// An interpreter nobody used for this long is ended.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);

pub(crate) struct CodeSession {
    pub(crate) id: String,
    /// The caller chose its id, and may have told others of it.
    named: bool,
    pub(crate) language: Language,
    answerer: Answerer,
    pub(crate) created: SystemTime,
    pub(crate) facts: Mutex<Facts>,
    /// `None` until the first code, and after a crash.
    interpreter: tokio::sync::Mutex<Option<Interpreter>>,
}

pub(crate) struct Facts {
    pub(crate) directory: PathBuf,
    pub(crate) last_used: SystemTime,
    pub(crate) max_idle: Duration,
}

impl CodeSession {
    fn new(id: Option<String>, language: Language, answerer: Answerer, directory: PathBuf) -> Self {
        let now = SystemTime::now();
        Self {
            named: id.is_some(),
            id: id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            language,
            answerer,
            created: now,
            facts: Mutex::new(Facts { directory, last_used: now, max_idle: IDLE }),
            interpreter: tokio::sync::Mutex::new(None),
        }
    }

    /// Ends it without ending what its code has started.
    async fn leave(self) {
        if let Some(interpreter) = self.interpreter.into_inner() {
            interpreter.leave();
        }
    }

    /// Code is running in it now.
    pub(crate) fn is_busy(&self) -> bool {
        self.interpreter.try_lock().is_err()
    }

    /// Runs code, after what runs in the session already.
    pub(crate) async fn run(
        &self,
        app: &App,
        code: &str,
        directory: Option<PathBuf>,
        limit: Duration,
    ) -> Result<Outcome, ApiError> {
        let mut slot = self.interpreter.lock().await;
        self.facts.lock().last_used = SystemTime::now();
        if !slot.as_ref().is_some_and(Interpreter::is_usable) {
            let program = program(self.language)?;
            let start = self.facts.lock().directory.clone();
            let started =
                Interpreter::start(self.language, self.answerer, start, program, &app.bashes().surroundings)
                    .await;
            *slot = Some(started.map_err(|error| {
                ApiError::unavailable(format!("cannot start {}: {error}", self.language.program()))
            })?);
        }
        let Some(interpreter) = slot.as_mut() else { return Err(ApiError::internal("no interpreter")) };
        let outcome = interpreter.run(code, directory.as_deref(), limit).await;
        self.facts.lock().last_used = SystemTime::now();
        Ok(outcome)
    }
}

/// The interpreter in the image, or an error that says what is missing.
pub(crate) fn program(language: Language) -> Result<PathBuf, ApiError> {
    find_program(language.program()).ok_or_else(|| {
        ApiError::new(
            http::StatusCode::NOT_IMPLEMENTED,
            format!("{} is not in this image", language.program()),
        )
        .with_hint("install it, or use an image that has it")
    })
}

pub(crate) struct Codes {
    sessions: Mutex<Sessions>,
    once: Arc<Semaphore>,
}

#[derive(Default)]
struct Sessions {
    kept: HashMap<String, Arc<CodeSession>>,
    ended: Ended,
}

impl Default for Codes {
    fn default() -> Self {
        Self { sessions: Mutex::default(), once: Arc::new(Semaphore::new(MAX_SESSIONS)) }
    }
}

/// A session, and what its caller should know.
pub(crate) struct Opened {
    pub(crate) session: Arc<CodeSession>,
    /// It was not there.
    pub(crate) new: bool,
    /// What became of an earlier one with that id.
    pub(crate) note: Option<String>,
}

impl Codes {
    pub(crate) fn all(&self, language: Language) -> Vec<Arc<CodeSession>> {
        let sessions = self.sessions.lock();
        sessions.kept.values().filter(|session| session.language == language).cloned().collect()
    }

    pub(crate) fn get(&self, language: Language, id: &str) -> Result<Arc<CodeSession>, ApiError> {
        let sessions = self.sessions.lock();
        let found = sessions.kept.get(id).filter(|session| session.language == language).cloned();
        found.ok_or_else(|| {
            let missing = ApiError::not_found(format!("Session not found: {}", shown(id)));
            match sessions.ended.why(id) {
                Some(why) => missing.with_hint(why),
                None => missing,
            }
        })
    }

    /// The session of that id, or a new one.
    pub(crate) fn open(
        &self,
        language: Language,
        answerer: Answerer,
        id: Option<String>,
        directory: PathBuf,
    ) -> Result<Opened, ApiError> {
        let id = id.filter(|id| !id.is_empty()).map(checked_id).transpose()?;
        let mut sessions = self.sessions.lock();
        if let Some(known) = id.as_ref().and_then(|id| sessions.kept.get(id)) {
            if known.language != language {
                let message = format!("session {} runs {}", shown(&known.id), known.language.program());
                return Err(ApiError::bad_request(message));
            }
            return Ok(Opened { session: Arc::clone(known), new: false, note: None });
        }
        sessions.make_room()?;
        let note = id.as_ref().and_then(|id| sessions.ended.take(id));
        let session = Arc::new(CodeSession::new(id, language, answerer, directory));
        sessions.kept.insert(session.id.clone(), Arc::clone(&session));
        Ok(Opened { session, new: true, note })
    }

    /// Runs code in an interpreter that is ended afterwards, alone. No session gives way for it.
    pub(crate) async fn run_once(
        &self,
        app: &App,
        language: Language,
        code: &str,
        directory: PathBuf,
        limit: Duration,
    ) -> Result<Outcome, ApiError> {
        let _slot = self.slot(limit).await?;
        let session = CodeSession::new(None, language, Answerer::Driver, directory);
        let outcome = session.run(app, code, None, limit).await;
        session.leave().await;
        outcome
    }

    async fn slot(&self, wait: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = tokio::time::timeout(wait, Arc::clone(&self.once).acquire_owned()).await;
        slot.ok().and_then(Result::ok).ok_or_else(|| {
            ApiError::bad_request(format!(
                "code session limit reached: {MAX_SESSIONS} pieces of code without state are running"
            ))
            .with_hint("wait for them to end, or give this one more time to wait (timeout)")
        })
    }

    pub(crate) fn remove(&self, language: Language, id: &str) -> Result<(), ApiError> {
        self.get(language, id)?;
        self.sessions.lock().kept.remove(id);
        Ok(())
    }

    pub(crate) fn remove_all(&self, language: Language) -> usize {
        let mut sessions = self.sessions.lock();
        let before = sessions.kept.len();
        sessions.kept.retain(|_, session| session.language != language);
        before - sessions.kept.len()
    }

    /// Ends interpreters that were idle for too long.
    pub(crate) fn sweep(&self) {
        let now = SystemTime::now();
        let mut sessions = self.sessions.lock();
        let Sessions { kept, ended } = &mut *sessions;
        kept.retain(|id, session| {
            let (last_used, max_idle) = {
                let facts = session.facts.lock();
                (facts.last_used, facts.max_idle)
            };
            let idle = now.duration_since(last_used).unwrap_or_default();
            let stays = session.is_busy() || idle < max_idle;
            if !stays {
                ended.note(id, Why::Idle(idle));
            }
            stays
        });
    }

    /// How many sessions there are, of both languages, and what became of others.
    pub(crate) fn counts(&self) -> Value {
        let sessions = self.sessions.lock();
        let all = sessions.kept.len();
        let busy = sessions.kept.values().filter(|session| session.is_busy()).count();
        json!({
            "sessions": all,
            "busy": busy,
            "idle": all - busy,
            "max_sessions": MAX_SESSIONS,
            "ended_to_make_room": sessions.ended.to_make_room(),
            "ended_after_idling": sessions.ended.after_idling(),
        })
    }
}

impl Sessions {
    /// Ends an idle session when there are as many as there may be: one whose id we made before one that a caller
    /// named, and of these the one that was used least recently.
    fn make_room(&mut self) -> Result<(), ApiError> {
        if self.kept.len() < MAX_SESSIONS {
            return Ok(());
        }
        let idle = self.kept.values().filter(|session| !session.is_busy());
        let oldest = idle.min_by_key(|session| (session.named, session.facts.lock().last_used));
        let Some(oldest) = oldest.map(|session| session.id.clone()) else {
            let message = format!("code session limit reached: {MAX_SESSIONS} sessions, all of them busy");
            return Err(ApiError::bad_request(message)
                .with_hint("wait for one of them, delete one, or run the code without state"));
        };
        self.kept.remove(&oldest);
        self.ended.note(&oldest, Why::Room);
        Ok(())
    }
}
