//! Sandbox agents as plain processes, each with a home directory of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::tail;
use crate::wait::{Outcome, until};

/// How long an agent may take to answer. It takes milliseconds, on an idle machine.
const READY: Duration = Duration::from_secs(20);
/// How long it may take to end: its own grace is 5 s.
const END: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_millis(10);
/// Below NodePorts and the kernel's ephemeral ports, so that no other connection takes one meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..21_000;

/// Running agents. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Agents(Vec<Agent>);

#[derive(Debug)]
struct Agent {
    url: String,
    log: PathBuf,
    child: Child,
}

impl Agents {
    /// Starts `count` of them below `directory`, which is made anew, and waits until all answer.
    pub(super) fn start(program: &Path, count: usize, directory: &Path, path: &OsStr) -> Result<Self> {
        if directory.exists() {
            std::fs::remove_dir_all(directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        let mut agents = Self(Vec::with_capacity(count));
        for number in 0..count {
            let home = directory.join(format!("home-{number}"));
            std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
            agents.0.push(Agent::start(program, &home, path)?);
        }
        for agent in &mut agents.0 {
            agent.wait_until_it_answers()?;
        }
        Ok(agents)
    }

    /// Where they answer.
    pub(super) fn urls(&self) -> Vec<String> {
        self.0.iter().map(|agent| agent.url.clone()).collect()
    }

    /// Ends all of them, in order.
    pub(super) fn stop(mut self) -> Result<()> {
        let stopped: Vec<_> = self.0.iter_mut().map(Agent::stop).collect();
        stopped.into_iter().collect()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // Asked to end before it is killed: it ends what runs in it.
        for agent in &mut self.0 {
            if agent.stop().is_err() {
                let _ = agent.child.kill();
                let _ = agent.child.wait();
            }
        }
    }
}

impl Agent {
    fn start(program: &Path, home: &Path, path: &OsStr) -> Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, free_port()?);
        let address = std::net::SocketAddr::from(address).to_string();
        let log = home.with_extension("log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(["--listen", &address, "--home"])
            .arg(home)
            // What a developer has set would be the agent's settings, and its commands' environment.
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot duplicate a descriptor")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { url: format!("http://{address}"), log, child })
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let url = format!("{}/v1/sandbox", self.url);
        let outcome = until(READY, INTERVAL, || {
            if let Some(status) = self.child.try_wait().context("cannot wait for an agent")? {
                bail!("the agent ended with {status}:{}", self.last_lines());
            }
            Ok(ureq::get(&url).call().map(drop).map_err(|error| error.to_string()))
        })?;
        match outcome {
            Outcome::Ready(()) => Ok(()),
            Outcome::TimedOut(error) => {
                bail!("{url} does not answer within {} s: {error}{}", READY.as_secs(), self.last_lines())
            }
        }
    }

    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait().context("cannot wait for an agent")?.is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.context("an agent has no id")?, Signal::TERM).context("cannot end an agent")?;
        }
        let ended = until(END, INTERVAL, || {
            let status = self.child.try_wait().context("cannot wait for an agent")?;
            Ok(status.ok_or_else(|| "it runs".to_owned()))
        })?;
        let Outcome::Ready(status) = ended else {
            bail!("an agent runs {} s after SIGTERM{}", END.as_secs(), self.last_lines());
        };
        ensure!(status.success(), "an agent ended with {status}:{}", self.last_lines());
        Ok(())
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let lines = tail(&String::from_utf8_lossy(&log), 20);
        format!("\nthe last lines of {}:\n{lines}", self.log.display())
    }
}

/// A port nobody listens on.
fn free_port() -> Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at once begin at different ones.
    let start = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start)).unwrap_or_default();
    let candidates = (0..PORTS.end - PORTS.start).map(|_| {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        PORTS.start + offset
    });
    candidates
        .into_iter()
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .with_context(|| format!("no port from {} to {} is free on 127.0.0.1", PORTS.start, PORTS.end - 1))
}
