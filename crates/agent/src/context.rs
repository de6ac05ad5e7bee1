//! `GET /v1/sandbox`: what the sandbox is, and the sign that it is alive.
//!
//! It is answered without starting anything and without a lock that a busy call could hold.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::reply;
use crate::options::Options;
use crate::pool::Pool;

/// Programs worth telling of when they are there: category, name, description.
const TOOLS: &[(&str, &str, &str)] = &[
    ("text", "jq", "JSON filter"),
    ("text", "rg", "ripgrep: recursive search"),
    ("text", "sed", "stream editor"),
    ("text", "awk", "pattern processing"),
    ("network", "curl", "transfer data with URLs"),
    ("network", "wget", "download files"),
    ("development", "git", "version control"),
    ("development", "make", "build tool"),
    ("development", "gcc", "C compiler"),
    ("archive", "tar", "archives"),
    ("archive", "zip", "archives"),
    ("archive", "unzip", "archives"),
];

/// What does not change while the agent runs.
pub(crate) struct Context {
    home: String,
    workspace: String,
    system: System,
    programs: Arc<OnceLock<Programs>>,
    ports: Arc<Mutex<Ports>>,
}

/// What can be run here. It takes some eighty system calls to find, so a start does not wait for it.
struct Programs {
    runtime: Value,
    tools: Value,
}

impl Programs {
    fn find() -> Self {
        let path = SearchPath::of_this_process().without_repetitions();
        let runtimes = |name| runtimes(&path, name);
        Self {
            runtime: json!({ "python": runtimes("python3"), "nodejs": runtimes("node") }),
            tools: tools(&path),
        }
    }
}

/// The ports last seen, because looking takes the kernel milliseconds on a busy machine.
struct Ports {
    seen: Vec<u16>,
    looked: Instant,
}

/// How old the list of ports may be before it is looked at again, for the next answer.
const PORTS_AGE: Duration = Duration::from_secs(1);
/// Read at once: every read of the table makes the kernel walk it from the start.
const PORT_TABLE: usize = 64 * 1024;

#[derive(Clone)]
struct System {
    os: String,
    release: String,
    arch: String,
    user: String,
    timezone: String,
}

#[derive(Serialize)]
struct Answer {
    success: bool,
    message: &'static str,
    data: String,
    hint: Option<()>,
    home_dir: String,
    workspace: String,
    version: &'static str,
    detail: Value,
}

/// The level of the API that is spoken, for clients that compare; our own version is in `data`.
const API_VERSION: &str = "1.11.0";

pub(crate) fn router() -> Router<App> {
    Router::new().route("/v1/sandbox", get(sandbox))
}

/// Probes carry no token and need none; then they are told that the sandbox is alive, and no more than where its files are.
pub(crate) async fn sandbox(State(app): State<App>, headers: HeaderMap) -> Response {
    let mut answer = app.context().answer(app.pool());
    if !app.gate().knows(&headers) {
        answer.withhold();
    }
    reply::json(StatusCode::OK, &answer)
}

impl Answer {
    /// Leaves out what only callers with a token are told. The shape stays what clients parse.
    fn withhold(&mut self) {
        self.data.clear();
        self.detail = json!({
            "system": {
                "os": "", "os_version": "", "arch": "", "user": "", "home_dir": self.home_dir,
                "workspace": self.workspace, "timezone": "", "occupied_ports": [],
            },
            "runtime": { "python": [], "nodejs": [] },
            "utils": [],
        });
    }
}

impl Context {
    pub(crate) fn new(options: &Options, pool: &Pool) -> Self {
        let programs = Arc::new(OnceLock::new());
        let shared = Arc::clone(&programs);
        pool.leave(move || {
            shared.get_or_init(Programs::find);
        });
        // Nothing else listens where nothing else was started.
        let ports = Ports { seen: vec![options.listen.port()], looked: Instant::now() };
        Self {
            home: options.home.to_string_lossy().into_owned(),
            workspace: options.workspace.to_string_lossy().into_owned(),
            system: System::read(),
            programs,
            ports: Arc::new(Mutex::new(ports)),
        }
    }

    /// Ports on which something listens, as last seen; a look for the next answer is left to the pool.
    fn occupied_ports(&self, pool: &Pool) -> Vec<String> {
        let mut ports = self.ports.lock();
        if ports.looked.elapsed() > PORTS_AGE {
            ports.looked = Instant::now();
            let shared = Arc::clone(&self.ports);
            pool.leave(move || {
                let seen = listening_ports();
                shared.lock().seen = seen;
            });
        }
        ports.seen.iter().map(u16::to_string).collect()
    }

    fn answer(&self, pool: &Pool) -> Answer {
        let System { os, release, arch, user, timezone } = self.system.clone();
        let programs = self.programs.get_or_init(Programs::find);
        let summary = format!(
            "{os} {release} {arch}; user {user}; home {}; stockade agent {}",
            self.home,
            env!("CARGO_PKG_VERSION")
        );
        Answer {
            success: true,
            message: "ok",
            data: summary,
            hint: None,
            home_dir: self.home.clone(),
            workspace: self.workspace.clone(),
            version: API_VERSION,
            detail: json!({
                "system": {
                    "os": os, "os_version": release, "arch": arch, "user": user, "home_dir": self.home,
                    "workspace": self.workspace, "timezone": timezone, "occupied_ports": self.occupied_ports(pool),
                },
                "runtime": programs.runtime,
                "utils": programs.tools,
            }),
        }
    }
}

impl System {
    fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            os: text(uname.sysname()),
            release: text(uname.release()),
            arch: text(uname.machine()),
            user: user_name(),
            timezone: timezone(),
        }
    }
}

fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()));
    match entry.and_then(|line| line.split(':').next()) {
        Some(name) => name.to_owned(),
        None => std::env::var("USER").unwrap_or(uid),
    }
}

fn timezone() -> String {
    if let Ok(zone) = std::env::var("TZ") {
        return zone;
    }
    if let Ok(zone) = std::fs::read_to_string("/etc/timezone") {
        return zone.trim().to_owned();
    }
    let link = std::fs::read_link("/etc/localtime").unwrap_or_default();
    let name = link.to_string_lossy();
    name.split_once("zoneinfo/").map_or_else(|| "UTC".to_owned(), |(_, zone)| zone.to_owned())
}

/// The program of that name in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    SearchPath::of_this_process().find(name)
}

/// The directories of `PATH`.
struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    fn of_this_process() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        Self(std::env::split_paths(&path).collect())
    }

    /// Without directories that are another of them: on most systems `/bin` is `/usr/bin`.
    fn without_repetitions(self) -> Self {
        let mut seen = Vec::new();
        let is_new = |directory: &PathBuf| {
            let Ok(stat) = rustix::fs::stat(directory) else { return false };
            let place = (stat.st_dev, stat.st_ino);
            let is_new = !seen.contains(&place);
            seen.push(place);
            is_new
        };
        Self(self.0.into_iter().filter(is_new).collect())
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let files = self.0.iter().map(|directory| directory.join(name));
        let runs =
            |file: &PathBuf| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && !file.is_dir();
        files.into_iter().find(runs)
    }
}

fn runtimes(path: &SearchPath, name: &str) -> Value {
    let Some(program) = path.find(name) else { return json!([]) };
    let version = version_by_name(&program).unwrap_or_else(|| "unknown".to_owned());
    json!([{ "ver": version, "bin": program.to_string_lossy(), "alias": [name] }])
}

/// `python3 -> python3.12`: the version without starting the program.
pub(crate) fn version_by_name(program: &Path) -> Option<String> {
    let file = program.canonicalize().ok()?;
    let name = file.file_name()?.to_string_lossy().into_owned();
    let version = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    version.contains('.').then(|| version.to_owned())
}

fn tools(path: &SearchPath) -> Value {
    let mut categories: Vec<(&str, Vec<Value>)> = Vec::new();
    for (category, name, description) in TOOLS {
        if path.find(name).is_none() {
            continue;
        }
        let tool = json!({ "name": name, "description": description });
        match categories.iter_mut().find(|(known, _)| known == category) {
            Some((_, tools)) => tools.push(tool),
            None => categories.push((category, vec![tool])),
        }
    }
    categories.into_iter().map(|(category, tools)| json!({ "category": category, "tools": tools })).collect()
}

fn listening_ports() -> Vec<u16> {
    let mut ports: Vec<u16> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| read_table(file).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(listening_port).collect::<Vec<_>>())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn read_table(file: &str) -> std::io::Result<String> {
    let mut table = Vec::with_capacity(PORT_TABLE);
    std::fs::File::open(file)?.take(PORT_TABLE as u64).read_to_end(&mut table)?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    // 0A is TCP_LISTEN.
    let state = fields.nth(1)?;
    (state == "0A").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok()).flatten()
}
