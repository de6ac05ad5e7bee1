//! Other programs that make sandboxes, started the same way: the same agent, the same directories, namespaces of their
//! own, until the agent answers the first 200 over HTTP.
//!
//! What they do less than we do, because they cannot or because it would be a project of its own:
//!
//! - all: files of the machine belong to nobody inside (we show them with their owners), nothing is written beside the
//!   system's files (we lay a writable layer over them), no Landlock, one limit for all commands, no way out of the
//!   network, no port outside (we connect inside their network), no record, and nobody who restarts them;
//! - bubblewrap: no control groups, no filter of system calls;
//! - runc, crun: a filter that forbids some calls instead of one that allows some.

mod bundle;
mod bwrap;
mod inside;
mod oci;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::bar::bar;
use crate::rows::{Row, Rows, Times};

/// Starts of each program.
const STARTS: usize = 100;
/// How long one start may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Where the agent listens inside.
const PORT: u16 = 8080;
const HOME: &str = "/home/gem";

/// A program to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    Bwrap,
    Runc,
    Crun,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Bwrap => "bubblewrap",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

/// A descriptor that programs inherit: the agent writes to it when it listens. OCI programs pass on those from the third
/// on, so that its number should be a small one.
#[derive(Debug)]
pub(crate) struct Passed(OwnedFd);

impl Passed {
    /// Takes the first number that is free.
    pub(crate) fn reserve() -> Self {
        Self(closed())
    }

    fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// What is started from now on inherits this.
    fn pass(&mut self, to: &OwnedFd) {
        rustix::io::dup2(to, &mut self.0).expect("a descriptor");
    }

    /// No more.
    fn end(&mut self) {
        rustix::io::dup3(closed(), &mut self.0, rustix::io::DupFlags::CLOEXEC).expect("a descriptor");
    }
}

fn closed() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

/// What all sandboxes of this part share.
struct World {
    directory: tempfile::TempDir,
    program: PathBuf,
    passed: Passed,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Directories as DeerFlow mounts them: source, target, whether it is read-only.
    fn mounts(&self) -> [(PathBuf, &'static str, bool); 5] {
        [
            (self.path("base/user-data"), "/mnt/user-data", false),
            (self.path("base/public"), "/mnt/skills/public", true),
            (self.path("base/custom"), "/mnt/skills/custom", true),
            (self.path("base/legacy"), "/mnt/skills/legacy", true),
            (self.path("base/acp"), "/mnt/acp-workspace", true),
        ]
    }

    /// The agent's arguments. It is us, by the name it is started under.
    fn agent(&self) -> Vec<String> {
        vec![
            "stockade-agent".to_owned(),
            format!("--listen=0.0.0.0:{PORT}"),
            format!("--home={HOME}"),
            format!("--ready-fd={}", self.passed.number()),
        ]
    }
}

/// Where the agent lies inside.
const AGENT: &str = "/opt/agent";
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", HOME), ("PATH", "/opt/agent:/usr/local/bin:/usr/bin:/bin"), ("USER", "gem")];
/// What of /etc programs look at.
const ETC: [&str; 7] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl",
];
/// Directories of the system: links to directories are links inside too.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// One started sandbox; dropping it ends it.
trait Started {
    /// A process in its network.
    fn pid(&mut self) -> u32;
}

pub(crate) fn measure(program: &Path, tools: &[Tool], passed: Passed, rows: &mut Rows) {
    if tools.is_empty() {
        return;
    }
    let directory = tempfile::Builder::new().prefix("stockade-bench-").tempdir().expect("a directory");
    let mut world = World { directory, program: program.to_owned(), passed };
    world.prepare();
    for tool in tools {
        match times(&mut world, *tool) {
            Ok(times) => {
                let times_row = Row::times(&format!("{}, started to first 200", tool.name()), &times);
                let reference = Some(Times::of(&times).quantile(0.5));
                rows.add(&Row { ours: f64::NAN, reference, ..times_row });
            }
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "{} is skipped: {why}", tool.name());
            }
        }
    }
}

impl World {
    fn prepare(&self) {
        use std::os::unix::fs::{PermissionsExt, chown};
        // Users inside are nobody outside: they have to get here.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.directory.path(), open).expect("permissions");
        for (source, _, read_only) in self.mounts() {
            std::fs::create_dir_all(&source).expect("a directory");
            if !read_only {
                let _ = chown(&source, Some(bundle::USER), Some(bundle::USER));
            }
        }
        let agent = self.path("stockade-agent");
        std::fs::copy(&self.program, &agent).expect("a copy of the program");
    }
}

fn times(world: &mut World, tool: Tool) -> Result<Vec<Duration>, String> {
    let oci = match tool {
        Tool::Bwrap => None,
        Tool::Runc => Some(bundle::make(world, "runc")?),
        Tool::Crun => Some(bundle::make(world, "crun")?),
    };
    // Caches are warm for all: the first one is not counted.
    one(world, oci.as_ref(), 0)?;
    let bar = bar(tool.name(), STARTS);
    (1..=STARTS)
        .map(|number| {
            bar.inc(1);
            one(world, oci.as_ref(), number)
        })
        .collect()
}

fn one(world: &mut World, oci: Option<&oci::Oci>, number: usize) -> Result<Duration, String> {
    let (ready, write) = std::io::pipe().map_err(|error| error.to_string())?;
    let write = OwnedFd::from(write);
    world.passed.pass(&write);
    drop(write);
    let began = Instant::now();
    let started: Result<Box<dyn Started>, String> = match oci {
        None => bwrap::start(world).map(|started| Box::new(started) as Box<dyn Started>),
        Some(oci) => oci.start(world, number).map(|started| Box::new(started) as Box<dyn Started>),
    };
    world.passed.end();
    let mut started = started?;
    inside::wait_ready(&ready.into(), LIMIT)?;
    inside::first_answer(started.pid(), PORT, LIMIT)?;
    Ok(began.elapsed())
}
