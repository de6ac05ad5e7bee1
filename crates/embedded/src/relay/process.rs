//! The relay's process: how it comes to life, and that it has little to lose.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};
use thiserror::Error;

use super::accept::Gate;
use super::confine;
use super::connector::Connector;
use super::control;
use super::limits::Limits;
use super::machine::Machine;
use super::place::Place;
use super::registry::Registry;
use super::start::READY;

/// Why a relay gives up at its start.
#[derive(Debug, Error)]
enum StartError {
    #[error("{0} was not expected; it is started by the server, not by hand")]
    Usage(String),
    #[error(transparent)]
    Place(#[from] super::RelayError),
    #[error("another relay lives for {}, and its socket is gone; end it first", .0.display())]
    Another(PathBuf),
    #[error("cannot {what}: {source}")]
    System {
        what: String,
        #[source]
        source: io::Error,
    },
}

fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what: what.into(), source }
}

#[derive(Debug)]
struct Arguments {
    directory: PathBuf,
    cgroups: Vec<PathBuf>,
    low_ports: bool,
    wait: Duration,
}

/// Serves until it is told to end. The process that was started ends at once, and the relay goes on as an
/// orphan in a session of its own.
pub(crate) fn run() -> ExitCode {
    match detach() {
        Ok(true) => {}
        Ok(false) => return ExitCode::SUCCESS,
        Err(error) => return failed(&mut io::stdout(), &cannot("leave the server's session")(error)),
    }
    let handed = match Handed::take() {
        Ok(handed) => handed,
        Err(error) => return failed(&mut io::stdout(), &cannot("keep what the server handed over")(error)),
    };
    let mut report = Some(handed.report);
    let prepared = arguments(std::env::args_os().skip(1)).and_then(prepare);
    match prepared.and_then(|prepared| serve(prepared, handed.start_lock, &mut report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match &mut report {
            Some(report) => failed(report, &error),
            None => failed(&mut io::stderr(), &error),
        },
    }
}

/// Says it to the server, or to the log when the server listens no more.
fn failed(to: &mut dyn Write, error: &StartError) -> ExitCode {
    if writeln!(to, "{error}").is_err() {
        log(format_args!("{error}"));
    }
    ExitCode::FAILURE
}

/// Writes a line to the relay's log.
pub(super) fn log(line: std::fmt::Arguments<'_>) {
    // There is nobody to tell that the log is full.
    let _ = writeln!(io::stderr(), "{line}");
}

fn arguments(mut given: impl Iterator<Item = OsString>) -> Result<Arguments, StartError> {
    let directory = given.next().ok_or_else(|| StartError::Usage("no state directory".to_owned()))?;
    let (cgroups, wait) = (Vec::new(), Duration::ZERO);
    let mut arguments = Arguments { directory: directory.into(), cgroups, low_ports: false, wait };
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--low-ports") => arguments.low_ports = true,
            Some("--cgroup") => arguments.cgroups.extend(given.next().map(PathBuf::from)),
            Some("--wait-ms") => {
                let wait = given.next().and_then(|wait| wait.to_str()?.parse().ok());
                let missing = || StartError::Usage("--wait-ms without a number".to_owned());
                arguments.wait = Duration::from_millis(wait.ok_or_else(missing)?);
            }
            _ => return Err(StartError::Usage(argument.to_string_lossy().into_owned())),
        }
    }
    Ok(arguments)
}

/// Becomes an orphan in a session of its own: whether this process goes on.
fn detach() -> io::Result<bool> {
    if !forked()? {
        return Ok(false);
    }
    rustix::process::setsid()?;
    // Who leads a session could get a terminal.
    forked()
}

/// Goes on in a child: whether this is the child.
#[allow(unsafe_code)]
fn forked() -> io::Result<bool> {
    // SAFETY: this process has one thread: `role::run` is called before any other is started.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(true),
        _ => Ok(false),
    }
}

/// What the server handed over in place of standard input and output.
struct Handed {
    start_lock: OwnedFd,
    report: std::fs::File,
}

impl Handed {
    #[allow(unsafe_code)]
    fn take() -> io::Result<Self> {
        // SAFETY: nothing but the three standard streams is in use yet: no value owns another descriptor.
        if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let start_lock = rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?;
        let report = rustix::io::fcntl_dupfd_cloexec(stdout(), 3)?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        Ok(Self { start_lock, report: report.into() })
    }
}

/// What a relay has before it serves.
struct Prepared {
    /// Held until the process ends.
    life: OwnedFd,
    control: OwnedFd,
    limits: Limits,
    wait: Duration,
}

fn prepare(arguments: Arguments) -> Result<Prepared, StartError> {
    for cgroup in &arguments.cgroups {
        let path = cgroup.join("cgroup.procs");
        std::fs::write(&path, "0").map_err(cannot(format!("join {}", path.display())))?;
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let place = Place::open(&arguments.directory)?;
    let life = place
        .lock_life()
        .map_err(cannot("lock relay.lock"))?
        .ok_or_else(|| StartError::Another(arguments.directory.clone()))?;
    let life = last_to_close(life).map_err(cannot("keep relay.lock"))?;
    let control = place.bind().map_err(cannot("open relay.sock"))?;
    let limits = Limits::of_this_process();
    confine::restrict(arguments.low_ports).map_err(cannot("give up its rights"))?;
    Ok(Prepared { life, control, limits, wait: arguments.wait })
}

/// The kernel closes descriptors of a process that ends in their order: with the lock behind them, whoever gets
/// it finds the ports free.
fn last_to_close(lock: OwnedFd) -> io::Result<OwnedFd> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let last = limit.map_or(LOCK_DESCRIPTOR, |limit| LOCK_DESCRIPTOR.min(limit.saturating_sub(1)));
    Ok(rustix::io::fcntl_dupfd_cloexec(&lock, i32::try_from(last).unwrap_or(0))?)
}

/// Behind the ports of a thousand sandboxes; the table up to there takes 32 KiB.
const LOCK_DESCRIPTOR: u64 = 4095;

fn serve(
    prepared: Prepared,
    start_lock: OwnedFd,
    report: &mut Option<std::fs::File>,
) -> Result<(), StartError> {
    // One thread passes everything on: a gigabyte a second, and a connection never waits for another thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start its event loop"))?;
    let served = runtime.block_on(async {
        let home = own_namespace(Path::new("/proc/self/ns/net")).map_err(cannot("read its namespace"))?;
        // It stays in the machine's network namespace; this thread leaves it.
        let machine = Machine::start().map_err(cannot("start a thread"))?;
        let connector = Connector::start().map_err(cannot("leave the machine's network"))?;
        let registry = Registry::new(Gate::new(machine, connector, prepared.limits, prepared.wait), home);
        let serving = control::serve(prepared.control, Arc::new(registry));
        if let Some(mut report) = report.take() {
            // The server may have been killed meanwhile; it is served when it comes back.
            let _ = write!(report, "{READY}");
        }
        drop(start_lock);
        serving.await.map_err(cannot("accept on relay.sock"))
    });
    drop(prepared.life);
    served
}

/// The number of a namespace.
fn own_namespace(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

/// The number of this process's user namespace; 0 where it cannot be read.
pub(super) fn user_namespace() -> u64 {
    own_namespace(Path::new("/proc/self/ns/user")).unwrap_or(0)
}

/// The number of an open namespace, if it is a network namespace.
#[allow(unsafe_code)]
pub(super) fn network_namespace(namespace: &OwnedFd) -> io::Result<u64> {
    // SAFETY: NS_GET_NSTYPE takes no argument and fails on a descriptor that is no namespace.
    let kind = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no network namespace"));
    }
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}
