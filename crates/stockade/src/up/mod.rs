//! `stockade up`: what a server for one machine needs beyond serving, and what it says to the person who
//! started it.

pub(crate) mod down;
mod narrate;
pub(crate) mod port_holder;
mod welcome;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use stockade_core::Backend;
use stockade_server::Access;

use self::narrate::Narrated;
pub(crate) use self::welcome::Welcome;
use crate::settings::Settings;
use crate::state::StateDir;

/// What is logged on a terminal, where the rest is said in other words.
pub(crate) const QUIET_FILTER: &str = "warn,kube_client=off";

/// What the person who started the server is told.
pub(crate) struct Announcement {
    /// Where the key is; `None` when it came from a variable, or none is wanted.
    pub(crate) key_file: Option<PathBuf>,
    /// Somebody reads along.
    pub(crate) for_people: bool,
    /// The lines that start the same server again, and end its sandboxes.
    pub(crate) again: String,
    pub(crate) down: String,
}

/// Whether a person sees what is printed.
pub(crate) fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// What the person is told who starts a server with these settings.
pub(crate) fn announcement(settings: &Settings, key_file: Option<PathBuf>, for_people: bool) -> Announcement {
    let own = welcome::own_line(settings);
    Announcement { key_file, for_people, again: own.up(settings.listen), down: own.line("down", "") }
}

/// Makes state directory and key if they are missing, and lets the key in. The key's file, unless the key came
/// from a variable or none is wanted.
///
/// # Errors
/// When the directory or the key cannot be made or is not safe.
pub(crate) fn prepare(settings: &mut Settings) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = &settings.state_dir else { return Ok(None) };
    let dir = StateDir::make(path)?;
    if !matches!(settings.server.access, Access::Nobody) {
        return Ok(None);
    }
    let key: SecretString = dir.make_key()?;
    settings.server.access = Access::key(&key);
    Ok(Some(dir.key_file()))
}

impl Announcement {
    /// Says where everything is: to a person in full, else as a line of the log.
    ///
    /// # Errors
    /// When nothing can be printed.
    pub(crate) fn welcome(&self, settings: &Welcome, url: &str) -> io::Result<()> {
        if self.for_people {
            return welcome::print(&mut io::stdout().lock(), settings, url, self.key_file.as_deref());
        }
        let key_file = self.key_file.as_ref().map(|path| path.display().to_string());
        tracing::info!(url, key_file, "up");
        Ok(())
    }

    /// Says what becomes of the sandboxes when the server has ended.
    pub(crate) fn farewell(&self) {
        let Self { again, down, .. } = self;
        if self.for_people {
            let text = format!(
                "\nThe server has ended; its sandboxes run on at their addresses. A server takes them over again \
                 with\n\n  {again}\n\nand this ends them:\n\n  {down}"
            );
            // The last words; nobody is left to tell if they cannot be written.
            let _ = writeln!(io::stdout().lock(), "{text}");
        } else {
            tracing::info!(again, down, "the sandboxes run on");
        }
    }

    /// The backend, which says from now on what is made and ended.
    pub(crate) fn narrated(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        if self.for_people { Arc::new(Narrated::new(backend)) } else { backend }
    }
}
