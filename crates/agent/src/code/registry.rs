//! The sessions of code execution: which interpreters are kept, and for how long.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use uuid::Uuid;

use super::interpreter::{Answerer, Interpreter, Language, Outcome};
use crate::app::App;
use crate::context::find_program;
use crate::http::ApiError;
use crate::shell::registry::{checked_id, shown};

/// Interpreters kept at once, of both languages.
pub(crate) const MAX_SESSIONS: usize = 16;
/// An interpreter nobody used for this long is ended.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);

pub(crate) struct CodeSession {
    pub(crate) id: String,
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

#[derive(Default)]
pub(crate) struct Codes {
    sessions: Mutex<HashMap<String, Arc<CodeSession>>>,
}

impl Codes {
    pub(crate) fn all(&self, language: Language) -> Vec<Arc<CodeSession>> {
        let sessions = self.sessions.lock();
        sessions.values().filter(|session| session.language == language).cloned().collect()
    }

    pub(crate) fn get(&self, language: Language, id: &str) -> Result<Arc<CodeSession>, ApiError> {
        let found = self.sessions.lock().get(id).filter(|session| session.language == language).cloned();
        found.ok_or_else(|| ApiError::not_found(format!("Session not found: {}", shown(id))))
    }

    /// The session of that id, or a new one. `true`: it is new.
    pub(crate) fn open(
        &self,
        language: Language,
        answerer: Answerer,
        id: Option<String>,
        directory: PathBuf,
    ) -> Result<(Arc<CodeSession>, bool), ApiError> {
        let id = match id.filter(|id| !id.is_empty()) {
            Some(id) => checked_id(id)?,
            None => Uuid::new_v4().to_string(),
        };
        let mut sessions = self.sessions.lock();
        if let Some(known) = sessions.get(&id) {
            if known.language != language {
                let message = format!("session {} runs {}", shown(&id), known.language.program());
                return Err(ApiError::bad_request(message));
            }
            return Ok((Arc::clone(known), false));
        }
        if sessions.len() >= MAX_SESSIONS {
            let idle = sessions.values().filter(|session| !session.is_busy());
            let oldest =
                idle.min_by_key(|session| session.facts.lock().last_used).map(|session| session.id.clone());
            let Some(oldest) = oldest else {
                let message =
                    format!("code session limit reached: {MAX_SESSIONS} sessions, all of them busy");
                return Err(ApiError::bad_request(message));
            };
            sessions.remove(&oldest);
        }
        let now = SystemTime::now();
        let facts = Mutex::new(Facts { directory, last_used: now, max_idle: IDLE });
        let interpreter = tokio::sync::Mutex::new(None);
        let session =
            Arc::new(CodeSession { id: id.clone(), language, answerer, created: now, facts, interpreter });
        sessions.insert(id, Arc::clone(&session));
        Ok((session, true))
    }

    pub(crate) fn remove(&self, language: Language, id: &str) -> Result<(), ApiError> {
        self.get(language, id)?;
        self.sessions.lock().remove(id);
        Ok(())
    }

    pub(crate) fn remove_all(&self, language: Language) -> usize {
        let mut sessions = self.sessions.lock();
        let before = sessions.len();
        sessions.retain(|_, session| session.language != language);
        before - sessions.len()
    }

    /// Ends interpreters that were idle for too long.
    pub(crate) fn sweep(&self) {
        let now = SystemTime::now();
        self.sessions.lock().retain(|_, session| {
            let facts = session.facts.lock();
            session.is_busy() || now.duration_since(facts.last_used).unwrap_or_default() < facts.max_idle
        });
    }
}
