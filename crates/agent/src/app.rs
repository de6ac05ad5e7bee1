//! What all routes share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::Router;
use tokio::sync::Semaphore;

use crate::auth::Gate;
use crate::bash::Bashes;
use crate::code::Codes;
use crate::context::Context;
use crate::environment;
use crate::extras::hooks::Hooks;
use crate::file::editor::Undo;
use crate::file::watch::Watches;
use crate::http::guard::KnownHosts;
use crate::kills::Kills;
use crate::options::Options;
use crate::output::Budget;
use crate::pool::Pool;
use crate::process::Reaper;
use crate::shell::websocket::Terminals;
use crate::shell::{Shells, Surroundings};

/// Threads for blocking calls.
const POOL_THREADS: usize = 4;
/// Searches and listings at once; the other threads of the pool stay free for short calls.
const LONG_CALLS: usize = 2;
/// Memory of all request bodies that are being read.
const BODY_MEBIBYTES: usize = 256;
/// Memory of the output of all commands, of both kinds of session.
const OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// Bounds on what all requests together may use.
pub(crate) struct Limits {
    pub(crate) body_mebibytes: Semaphore,
    pub(crate) long_calls: Semaphore,
}

/// The state of the agent, shared by every request.
#[derive(Clone)]
pub(crate) struct App {
    shared: Arc<Shared>,
}

struct Shared {
    home: Arc<Path>,
    workspace: PathBuf,
    pool: Pool,
    shells: Shells,
    bashes: Bashes,
    limits: Limits,
    hosts: KnownHosts,
    gate: Gate,
    context: Context,
    undo: Undo,
    codes: Codes,
    hooks: Hooks,
    watches: Watches,
    terminals: Terminals,
    /// Why files can be read and nothing else.
    only_reads: Option<Arc<str>>,
    /// They hold the state they are part of, which lives as long as the process.
    routes: OnceLock<Router>,
}

impl App {
    pub(crate) fn new(options: &Options, reaper: Reaper) -> std::io::Result<Self> {
        let pool = Pool::start(POOL_THREADS)?;
        let context = Context::new(options, &pool);
        let environment = environment::of_commands(&options.home);
        let surroundings = Arc::new(Surroundings {
            reaper,
            pool: pool.clone(),
            budget: Budget::new(OUTPUT_BYTES),
            bash: crate::context::find_program("bash").unwrap_or_else(|| PathBuf::from("/bin/bash")),
            environment,
            kills: Arc::new(Kills::find()),
        });
        Ok(Self {
            shared: Arc::new(Shared {
                home: Arc::from(options.home.as_path()),
                workspace: options.workspace.clone(),
                pool,
                shells: Shells::new(options.max_shell_sessions, Arc::clone(&surroundings)),
                bashes: Bashes::new(surroundings),
                limits: Limits {
                    body_mebibytes: Semaphore::new(BODY_MEBIBYTES),
                    long_calls: Semaphore::new(LONG_CALLS),
                },
                hosts: options.hosts.clone(),
                gate: Gate::new(options.token_key.clone(), options.ticket_life),
                context,
                undo: Undo::default(),
                codes: Codes::default(),
                hooks: Hooks::new(&options.hooks),
                watches: Watches::default(),
                terminals: Terminals::default(),
                only_reads: options.only_reads.as_deref().map(Arc::from),
                routes: OnceLock::new(),
            }),
        })
    }

    /// Every route, built when the first is asked for: a health check needs none.
    pub(crate) fn routes(&self) -> Router {
        self.shared.routes.get_or_init(|| crate::routes::all(self.clone())).clone()
    }

    /// Why files can be read and nothing else; `None` when everything works.
    pub(crate) fn only_reads(&self) -> Option<&Arc<str>> {
        self.shared.only_reads.as_ref()
    }

    pub(crate) fn home(&self) -> Arc<Path> {
        Arc::clone(&self.shared.home)
    }

    /// Where sessions start unless told otherwise.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.shared.workspace.clone()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn shells(&self) -> &Shells {
        &self.shared.shells
    }

    pub(crate) fn bashes(&self) -> &Bashes {
        &self.shared.bashes
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn hosts(&self) -> &KnownHosts {
        &self.shared.hosts
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    pub(crate) fn undo(&self) -> &Undo {
        &self.shared.undo
    }

    pub(crate) fn codes(&self) -> &Codes {
        &self.shared.codes
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.shared.hooks
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.shared.watches
    }

    pub(crate) fn terminals(&self) -> &Terminals {
        &self.shared.terminals
    }

    pub(crate) fn context(&self) -> &Context {
        &self.shared.context
    }
}
